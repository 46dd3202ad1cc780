package mobilepack.harness

/** A loaded program, as one call of the model; used by one thread. */
fun interface Engine {
    /**
     * Feeds tokens from a position on.
     *
     * @param tokens 1 to the plan's `prefill_chunk` ids.
     * @param position Of the first token, from 0; the KV cache holds everything before it.
     * @return Logits [vocabulary] of the last token.
     */
    fun step(tokens: LongArray, position: Int): FloatArray
}

/** Feeds any number of tokens in calls of [chunk], the rest last; returns the last one's logits. */
fun Engine.prefill(tokens: LongArray, position: Int, chunk: Int): FloatArray {
    require(tokens.isNotEmpty()) { "there is no token to feed" }
    var logits = FloatArray(0)
    for (begin in tokens.indices step chunk) {
        val end = minOf(begin + chunk, tokens.size)
        logits = step(tokens.copyOfRange(begin, end), position + begin)
    }
    return logits
}

/** The id of the largest logit, the lowest id of several. */
fun greedy(logits: FloatArray): Long {
    var best = 0
    for (id in logits.indices) if (logits[id] > logits[best]) best = id
    return best.toLong()
}

/**
 * An engine whose program has a recurrent state: what a rewind would need is fed again.
 *
 * A KV cache can be used up to any position, a state is where the last call left it
 * (docs/decisions/0014).
 */
class Refeeding(private val engine: Engine, private val chunk: Int) : Engine {
    private var fed = LongArray(0)

    override fun step(tokens: LongArray, position: Int): FloatArray {
        if (position < fed.size) {
            fed = fed.copyOf(position)
            if (position > 0) engine.prefill(fed, 0, chunk)
        }
        fed += tokens
        return engine.step(tokens, position)
    }
}
