package mobilepack.harness

import kotlin.math.exp
import kotlin.math.ln

/** Reduces the logits of a call that fed positions [first] until [end] to a row of the result. */
internal fun row(
    plan: RunPlan,
    item: String,
    logits: FloatArray,
    first: Int,
    end: Int,
    nextId: Long?,
): Row {
    val broken = logits.count { !it.isFinite() }
    if (broken > 0) return Row(item, end - 1, end - first, nonFinite = broken)
    val top = largest(logits, plan.topK)
    return Row(
        item,
        position = end - 1,
        callTokens = end - first,
        sampled = plan.sampleIds.map { at(logits, it) },
        topIds = top,
        topLogits = top.map { logits[it] },
        logsumexp = logsumexp(logits, logits[top.first()]),
        nextLogit = nextId?.let { at(logits, it) },
    )
}

private fun at(logits: FloatArray, id: Long): Float {
    if (id < logits.size) return logits[id.toInt()]
    throw PlanRefused(listOf("the plan names token id $id, the program has ${logits.size}"))
}

/** Ids of the [count] largest, largest first, ties by lower id (the sort is stable). */
private fun largest(logits: FloatArray, count: Int): List<Int> {
    val least = logits.sortedArrayDescending()[minOf(count, logits.size) - 1]
    val candidates = logits.indices.filter { logits[it] >= least }
    return candidates.sortedWith { a, b -> compareFloats(logits[b], logits[a]) }.take(count)
}

/** Unlike `Float.compareTo`, 0.0 and -0.0 are equal, as they are in Python and C++. */
private fun compareFloats(a: Float, b: Float): Int = if (a < b) -1 else if (a > b) 1 else 0

private fun logsumexp(logits: FloatArray, peak: Float): Float =
    (peak + ln(logits.sumOf { exp(it.toDouble() - peak) })).toFloat()
