package mobilepack.harness

/**
 * What a dialogue may do.
 *
 * @property chunk Most tokens of one call.
 * @property positions That can be fed.
 * @property stopIds Ends an answer.
 */
class DialogueLimits(val chunk: Int, val positions: Int, val stopIds: Set<Long>)

/** A conversation token by token: the likeliest one, always; what was said stays in the cache. */
class Dialogue(
    private val engine: Engine,
    private val tokenizer: Tokenizer,
    private val limits: DialogueLimits,
) {
    private var position = 0

    @Volatile private var stopped = false

    /**
     * Continues a text until a stop token, [stop], or until the cache is full.
     *
     * @param onText Hears each new piece, on the caller's thread; several tokens can be one.
     * @return How many tokens were chosen, the stop token among them.
     * @throws PlanRefused if the text does not fit behind what was said before.
     */
    fun answer(text: String, onText: (String) -> Unit): Int {
        stopped = false
        val ids = tokenizer.encode(text)
        if (ids.isEmpty()) return 0
        if (position + ids.size > limits.positions) {
            val full = "the cache holds ${limits.positions} positions, $position are taken"
            throw PlanRefused(listOf("${ids.size} more tokens do not fit: $full; begin a new chat"))
        }
        var logits = engine.prefill(ids, position, limits.chunk)
        position += ids.size
        val stream = TextStream(tokenizer)
        var tokens = 0
        while (!stopped) {
            val next = greedy(logits)
            tokens += 1
            if (next in limits.stopIds) break
            say(stream.push(next), onText)
            if (position >= limits.positions) break
            logits = engine.step(longArrayOf(next), position)
            position += 1
        }
        say(stream.finish(), onText)
        return tokens
    }

    /** Ends the answer that is being given; from any thread. */
    fun stop() {
        stopped = true
    }

    /** Begins anew: of a cache only counts what lies before the position. */
    fun forget() {
        position = 0
    }
}

private fun say(text: String, onText: (String) -> Unit) {
    if (text.isNotEmpty()) onText(text)
}
