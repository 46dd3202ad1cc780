package mobilepack.harness

import kotlinx.serialization.json.JsonObject
import java.text.Normalizer

/**
 * White space as Unicode and the `tokenizers` library have it, for a class of a pattern: what `\s`
 * means differs between the patterns of Java and of Android.
 */
internal const val WHITE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"

/** GPT-2's way of cutting (Radford et al. 2019), which a ByteLevel step brings with it. */
private const val GPT2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/** What happens to a text before its words are looked up: a tokenizer.json's two lists of steps. */
internal class TextSteps(normalizer: JsonObject?, preTokenizer: JsonObject?) {
    private class Piece(val text: String, val first: Boolean)

    private val normalisers: List<(String) -> String> = flat(normalizer, "normalizers").map(::normaliser)
    private val cutters: List<(Piece) -> List<Piece>> = flat(preTokenizer, "pretokenizers").map(::cutter)

    val byteLevel = flat(preTokenizer, "pretokenizers").any { it.text("type") == "ByteLevel" }

    fun normalised(text: String): String = normalisers.fold(text) { done, step -> step(done) }

    /** The words of a stretch of text; [first] says that it begins the whole. */
    fun words(text: String, first: Boolean): List<String> =
        cutters.fold(listOf(Piece(text, first))) { pieces, step -> pieces.flatMap(step) }.map { it.text }

    private fun flat(step: JsonObject?, key: String): List<JsonObject> = when {
        step == null -> emptyList()
        step.text("type") == "Sequence" -> step.list(key).flatMap { flat(it as? JsonObject, key) }
        else -> listOf(step)
    }

    private fun normaliser(step: JsonObject): (String) -> String = when (val type = step.text("type")) {
        "NFC", "NFD", "NFKC", "NFKD" -> { text -> Normalizer.normalize(text, Normalizer.Form.valueOf(type)) }
        "Prepend" -> step.text("prepend").orEmpty().let { front ->
            { text -> if (text.isEmpty()) text else front + text }
        }
        "Replace" -> replacing(pattern(step), Regex.escapeReplacement(step.text("content").orEmpty()))
        else -> unknown("its normalizer has a step $type")
    }

    private fun cutter(step: JsonObject): (Piece) -> List<Piece> = when (val type = step.text("type")) {
        "Split" -> split(step)
        "Digits" -> isolating(Regex(if (step.flag("individual_digits")) "\\p{N}" else "\\p{N}+"))
        "ByteLevel" -> byteLevel(step)
        "Metaspace" -> metaspace(step)
        else -> unknown("its pre_tokenizer has a step $type")
    }

    private fun replacing(pattern: Regex, content: String): (String) -> String =
        { text -> text.replace(pattern, content) }

    private fun isolating(pattern: Regex): (Piece) -> List<Piece> = { piece -> isolated(piece, pattern) }

    private fun split(step: JsonObject): (Piece) -> List<Piece> {
        val pattern = pattern(step)
        val behavior = step.text("behavior")
        val inverted = step.flag("invert")
        return when {
            behavior == "Isolated" -> isolating(pattern)
            behavior == "Removed" && inverted -> { piece ->
                matches(piece, pattern).filter { it.second }.map { it.first }
            }
            behavior == "MergedWithPrevious" && !inverted -> { piece -> mergedWithPrevious(piece, pattern) }
            else -> unknown("its pre_tokenizer splits $behavior")
        }
    }

    private fun isolated(piece: Piece, pattern: Regex) = matches(piece, pattern).map { it.first }

    private fun mergedWithPrevious(piece: Piece, pattern: Regex): List<Piece> {
        val found = mutableListOf<Piece>()
        var open = false
        for ((part, matched) in matches(piece, pattern)) {
            val before = if (matched && open) found.removeAt(found.lastIndex) else null
            found += if (before == null) part else Piece(before.text + part.text, before.first)
            open = !matched
        }
        return found
    }

    /** Every match and what lies between, in order, and whether it is a match. */
    private fun matches(piece: Piece, pattern: Regex): List<Pair<Piece, Boolean>> = buildList {
        var begin = 0
        for (match in pattern.findAll(piece.text)) {
            if (match.value.isEmpty()) continue
            if (match.range.first > begin) add(part(piece, begin, match.range.first) to false)
            begin = match.range.last + 1
            add(part(piece, match.range.first, begin) to true)
        }
        if (begin < piece.text.length) add(part(piece, begin, piece.text.length) to false)
    }

    private fun part(piece: Piece, begin: Int, end: Int) =
        Piece(piece.text.substring(begin, end), piece.first && begin == 0)

    private fun byteLevel(step: JsonObject): (Piece) -> List<Piece> {
        val prefix = step.flag("add_prefix_space", true)
        val pattern = if (step.flag("use_regex", true)) regex(GPT2) else null
        return { piece ->
            val spaced = if (prefix && !piece.text.startsWith(" ")) " ${piece.text}" else piece.text
            val whole = Piece(spaced, piece.first)
            val cut = if (pattern == null) listOf(whole) else isolated(whole, pattern)
            cut.map { Piece(byteLevelText(it.text), it.first) }
        }
    }

    private fun metaspace(step: JsonObject): (Piece) -> List<Piece> {
        val space = step.text("replacement") ?: SPACE
        val scheme = step.text("prepend_scheme") ?: if (step.flag("add_prefix_space", true)) "always" else "never"
        val words = Regex("${Regex.escape(space)}?[^${Regex.escape(space)}]*")
        val cuts = step.flag("split", true)
        return { piece ->
            val text = piece.text.replace(" ", space)
            val wanted = scheme == "always" || scheme == "first" && piece.first
            val front = Piece(if (wanted && !text.startsWith(space)) space + text else text, piece.first)
            if (cuts) isolated(front, words) else listOf(front)
        }
    }

    private fun pattern(step: JsonObject): Regex {
        val source = step.child("pattern") ?: unknown("a step has no pattern")
        source.text("String")?.let { return Regex(Regex.escape(it)) }
        return regex(source.text("Regex") ?: unknown("a step's pattern is neither text nor a pattern"))
    }
}

/** Reads a pattern of Oniguruma's, which differs from Java's in what white space and digits are. */
private fun regex(source: String): Regex {
    val text = StringBuilder()
    var inClass = false
    var index = 0
    while (index < source.length) {
        val character = source[index]
        if (character == '\\' && index + 1 < source.length) {
            val escaped = source[index + 1]
            text.append(escape(escaped, inClass) ?: source.substring(index, index + 2))
            index += 2
            continue
        }
        if (character == '[') inClass = true
        if (character == ']') inClass = false
        text.append(character)
        index += 1
    }
    try {
        return Regex(text.toString())
    } catch (error: java.util.regex.PatternSyntaxException) {
        unknown("a pattern cannot be read: ${error.description}")
    }
}

private fun escape(letter: Char, inClass: Boolean): String? = when (letter) {
    's' -> if (inClass) WHITE else "[$WHITE]"
    'S' -> "[^$WHITE]"
    'd' -> "\\p{Nd}"
    'w', 'W', 'b', 'B', 'D', 'h', 'H', 'X', 'R' -> unknown("a pattern has \\$letter")
    else -> null
}

/**
 * GPT-2's letters for bytes: printable ones of Latin-1 stand for themselves, the others for U+0100
 * and what follows, in their order.
 */
private val LETTERS: CharArray = run {
    var next = 0x100
    CharArray(256) { byte ->
        if (byte in 0x21..0x7e || byte in 0xa1..0xac || byte in 0xae..0xff) byte.toChar() else next++.toChar()
    }
}
private val BYTES = LETTERS.withIndex().associate { it.value to it.index.toByte() }

internal fun byteLevelText(text: String): String {
    val bytes = text.toByteArray()
    return String(CharArray(bytes.size) { LETTERS[bytes[it].toInt() and 0xff] })
}

internal fun byteLevelBytes(piece: String): ByteArray =
    if (piece.all { it in BYTES }) ByteArray(piece.length) { BYTES.getValue(piece[it]) } else piece.toByteArray()
