package mobilepack.harness

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import java.util.PriorityQueue

/** Byte pair encoding (Sennrich et al. 2016): the pair of the lowest rank is merged first. */
internal class BytePairs(model: JsonObject) {
    private class Merge(val rank: Int, val result: Int)

    private class Candidate(val rank: Int, val place: Int, val left: Int, val right: Int)

    private val ids: Map<String, Int> =
        (model.child("vocab") ?: unknown("it has no vocabulary")).mapValues { (piece, id) ->
            id.text()?.toIntOrNull() ?: unknown("'$piece' has no id")
        }
    private val pieces = ids.entries.associate { it.value to it.key }
    private val merges: Map<Long, Merge> = buildMap {
        model.list("merges").forEachIndexed { rank, source ->
            val (left, right) = (source as? JsonArray)?.map { it.text().orEmpty() }
                ?: source.text().orEmpty().split(" ")
            val merge = Merge(rank, ids[left + right] ?: unknown("a merge gives no token: $left $right"))
            put(pair(id(left), id(right)), merge)
        }
    }
    private val byteFallback = model.flag("byte_fallback")
    private val fuseUnknown = model.flag("fuse_unk")
    private val unknownId = model.text("unk_token")?.let { ids[it] }
    private val wholeFirst = model.flag("ignore_merges")

    init {
        for (key in listOf("dropout", "continuing_subword_prefix", "end_of_word_suffix")) {
            val value = model.text(key).orEmpty()
            if (value.isNotEmpty() && value.toDoubleOrNull() != 0.0) unknown("its model has $key")
        }
    }

    fun piece(id: Int): String? = pieces[id]

    /** Adds the ids of a word. */
    fun encode(word: String, to: MutableList<Int>) {
        if (word.isEmpty()) return
        val whole = if (wholeFirst) ids[word] else null
        if (whole != null) to += whole else merged(symbols(word), to)
    }

    private fun id(piece: String): Int = ids[piece] ?: unknown("a merge is of no token: $piece")

    private fun symbols(word: String): IntArray {
        val found = mutableListOf<Int>()
        var afterUnknown = false
        for (point in word.codePoints()) {
            val character = String(Character.toChars(point))
            val id = ids[character]
            val bytes = if (id == null && byteFallback) bytes(character) else null
            when {
                id != null -> found += id
                bytes != null -> found += bytes
                unknownId != null && !(fuseUnknown && afterUnknown) -> found += unknownId
            }
            afterUnknown = id == null && bytes == null
        }
        return found.toIntArray()
    }

    private fun bytes(character: String): List<Int>? =
        character.toByteArray().map { ids["<0x%02X>".format(it)] ?: return null }

    /** Merges until no pair has a rank; neighbours are kept as a list, for words can be long texts. */
    private fun merged(symbols: IntArray, to: MutableList<Int>) {
        val next = IntArray(symbols.size) { it + 1 }
        val last = IntArray(symbols.size) { it - 1 }
        val queue = PriorityQueue(compareBy<Candidate> { it.rank }.thenBy { it.place })

        fun offer(place: Int) {
            val other = next.getOrElse(place) { symbols.size }
            if (place < 0 || other >= symbols.size) return
            val merge = merges[pair(symbols[place], symbols[other])] ?: return
            queue += Candidate(merge.rank, place, symbols[place], symbols[other])
        }
        for (place in symbols.indices) offer(place)
        while (true) {
            val best = queue.poll() ?: break
            val other = next[best.place]
            // A pair that was merged away, on either side, is no pair any more.
            if (symbols[best.place] != best.left || other >= symbols.size || symbols[other] != best.right) continue
            symbols[best.place] = merges.getValue(pair(best.left, best.right)).result
            symbols[other] = GONE
            next[best.place] = next[other]
            if (next[other] < symbols.size) last[next[other]] = best.place
            offer(last[best.place])
            offer(best.place)
        }
        symbols.filterTo(to) { it != GONE }
    }
}

private const val GONE = -1

private fun pair(left: Int, right: Int): Long = left.toLong() shl 32 or right.toLong()
