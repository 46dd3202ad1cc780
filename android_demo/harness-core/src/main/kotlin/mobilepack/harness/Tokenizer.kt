package mobilepack.harness

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.io.ByteArrayOutputStream

/** A tokenizer.json that this reader does not know; the message says what of it. */
class TokenizerRefused(message: String) : Refused(message)

/**
 * Text to ids and back, as the `tokenizers` library does with a tokenizer.json of byte pairs.
 *
 * Nothing is put around a text: what a model wants in front of it stands in the text, as a special
 * token. Vocabularies of other kinds (Unigram, WordPiece) are refused.
 */
class Tokenizer private constructor(
    private val raw: Cut,
    private val normalised: Cut,
    private val steps: TextSteps,
    private val pairs: BytePairs,
) {
    private val added = raw.texts() + normalised.texts()

    /** Returns the ids of a text; special tokens in it become theirs. */
    fun encode(text: String): LongArray {
        val ids = mutableListOf<Int>()
        raw.each(text) { part, start, special ->
            if (special != null) {
                ids += special
            } else {
                normalised.each(steps.normalised(part)) { piece, offset, id ->
                    if (id != null) ids += id else encode(piece, first = start + offset == 0, ids)
                }
            }
        }
        return LongArray(ids.size) { ids[it].toLong() }
    }

    private fun encode(piece: String, first: Boolean, to: MutableList<Int>) {
        for (word in steps.words(piece, first)) pairs.encode(word, to)
    }

    /** Returns the bytes of a token, which may be a part of a character; none of a special token. */
    fun bytes(id: Long): ByteArray {
        added[id.toInt()]?.let { return it.toByteArray() }
        val piece = pairs.piece(id.toInt()) ?: return ByteArray(0)
        if (steps.byteLevel) return byteLevelBytes(piece)
        BYTE.matchEntire(piece)?.let { return byteArrayOf(it.groupValues[1].toInt(16).toByte()) }
        return piece.replace(SPACE, " ").toByteArray()
    }

    companion object {
        /** @throws TokenizerRefused if it is another kind of tokenizer.json. */
        fun read(text: String): Tokenizer {
            val source = parse(text)
            val model = source.child("model") ?: unknown("it has no model")
            val kind = model.text("type") ?: "BPE"
            if (kind != "BPE") unknown("the chat reads vocabularies of byte pairs, this one is $kind")
            val steps = TextSteps(source.child("normalizer"), source.child("pre_tokenizer"))
            val (raw, normalised) = Cut.both(source.list("added_tokens"), steps)
            return Tokenizer(raw, normalised, steps, BytePairs(model))
        }

        private fun parse(text: String): JsonObject = try {
            Json.parseToJsonElement(text) as? JsonObject
        } catch (error: SerializationException) {
            unknown("tokenizer.json is no JSON: ${error.message}")
        } ?: unknown("tokenizer.json is no JSON object")
    }
}

/** Text of tokens as they come; what may be the start of a character is held back. */
class TextStream(private val tokenizer: Tokenizer) {
    private val held = ByteArrayOutputStream()

    /** Returns the text that is now certain, often one word or none. */
    fun push(id: Long): String {
        held.write(tokenizer.bytes(id))
        val bytes = held.toByteArray()
        val whole = bytes.size - unfinished(bytes)
        held.reset()
        held.write(bytes, whole, bytes.size - whole)
        return String(bytes, 0, whole, Charsets.UTF_8)
    }

    /** Returns what was held back; an incomplete character becomes U+FFFD. */
    fun finish(): String = String(held.toByteArray(), Charsets.UTF_8).also { held.reset() }

    /** How many bytes at the end begin a character that they do not end. */
    private fun unfinished(bytes: ByteArray): Int {
        for (back in 1..minOf(3, bytes.size)) {
            val byte = bytes[bytes.size - back].toInt() and 0xff
            val length = if (byte >= 0xf0) 4 else if (byte >= 0xe0) 3 else if (byte >= 0xc0) 2 else 1
            if (byte and 0xc0 != 0x80) return if (length > back) back else 0
        }
        return 0
    }
}

internal const val SPACE = "\u2581" // how SentencePiece writes a space
internal val BYTE = Regex("<0x([0-9A-Fa-f]{2})>")

internal fun unknown(what: String): Nothing = throw TokenizerRefused(what)

/** A token that is cut out of a text before anything else sees it. */
private class AddedToken(val id: Int, val content: String, val special: Boolean, val pattern: String)

/** Finds tokens in a text; the longest one wins where several begin. */
internal class Cut private constructor(private val tokens: List<AddedToken>) {
    private val pattern = if (tokens.isEmpty()) null else Regex(tokens.joinToString("|") { it.pattern })

    /** Gives every stretch of text with its place and null, and every token with its id. */
    fun each(text: String, found: (String, Int, Int?) -> Unit) {
        var begin = 0
        for (match in pattern?.findAll(text).orEmpty()) {
            val first = match.range.first
            if (first > begin) found(text.substring(begin, first), begin, null)
            found(match.value, first, tokens[tokens.indices.first { match.groups[it + 1] != null }].id)
            begin = match.range.last + 1
        }
        if (begin < text.length) found(text.substring(begin), begin, null)
    }

    companion object {
        private fun of(tokens: List<AddedToken>) = Cut(tokens.sortedByDescending { it.content.length })

        /** Of tokens that stand in a text as it is, and of those that stand in a normalised one. */
        fun both(source: JsonArray, steps: TextSteps): Pair<Cut, Cut> {
            val read = source.filterIsInstance<JsonObject>().map { it.flag("normalized") to token(it, steps) }
            val (later, first) = read.partition { it.first }
            return of(first.map { it.second }) to of(later.map { it.second })
        }

        private fun token(source: JsonObject, steps: TextSteps): AddedToken {
            val content = source.text("content").orEmpty()
            if (source.flag("single_word")) unknown("the added token '$content' is for single words")
            val sought = Regex.escape(if (source.flag("normalized")) steps.normalised(content) else content)
            val left = if (source.flag("lstrip")) "[$WHITE]*" else ""
            val right = if (source.flag("rstrip")) "[$WHITE]*" else ""
            val id = source.text("id")?.toIntOrNull() ?: unknown("the added token '$content' has no id")
            return AddedToken(id, content, source.flag("special"), "($left$sought$right)")
        }
    }

    /** What tokens add to a text, by their ids: nothing if they are special. */
    fun texts(): Map<Int, String> = tokens.associate { it.id to if (it.special) "" else it.content }
}

internal fun JsonObject.child(key: String): JsonObject? = this[key] as? JsonObject

internal fun JsonObject.list(key: String): JsonArray = this[key] as? JsonArray ?: JsonArray(emptyList())

internal fun JsonObject.text(key: String): String? = this[key].text()

internal fun JsonElement?.text(): String? = (this as? JsonPrimitive)?.takeUnless { it is JsonNull }?.content

internal fun JsonObject.flag(key: String, otherwise: Boolean = false): Boolean =
    text(key)?.toBooleanStrictOrNull() ?: otherwise
