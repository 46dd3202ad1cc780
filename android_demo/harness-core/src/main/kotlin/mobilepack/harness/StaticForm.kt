package mobilepack.harness

/** A method of a program, with its tensors in call order. */
class MethodSpec(val name: String, val inputs: List<TensorSpec>, val outputs: List<TensorSpec>) {
    /** @throws ManifestRefused if there is no such output. */
    fun output(wanted: String): Int {
        val index = outputs.indexOfFirst { it.name == wanted }
        return if (index >= 0) index else refuse("$name has no output $wanted")
    }
}

/**
 * How to call a program whose methods have fixed lengths and whose cache the caller keeps:
 * `StaticForm` of `mobilepack/contract/manifest.py`, which says what it asks of them.
 *
 * @property past Positions that the cache holds.
 * @property prefillTokens Of one call of `prefill`; `decode` takes one.
 * @property maskValue Added to a score that does not count.
 * @property windows Sliding window of each mask in tokens, 0 for full attention.
 * @property channelsFirst Whether keys are [1, heads, channels, past], else they lie as values do.
 * @property states Whether the program keeps the cache.
 */
class StaticForm internal constructor(
    val past: Int,
    val prefillTokens: Int,
    val maskValue: Float,
    val windows: Set<Int>,
    val channelsFirst: Boolean,
    val states: Boolean,
) {
    /** How many positions can be fed: the cache need not hold the very last one, states must. */
    val positions: Int get() = if (states) past else past + 1

    lateinit var prefill: MethodSpec
        internal set
    lateinit var decode: MethodSpec
        internal set
}

/** A package's manifest that cannot be obeyed; the message says where and why. */
class ManifestRefused(message: String) : Refused(message)

internal fun refuse(why: String): Nothing = throw ManifestRefused(why)

/** Keys or values as [outer] blocks of so many positions of [inner] numbers. */
internal class Layout(val outer: Int, val positions: Int, val inner: Int)

private val CACHE = Regex("[kv]_[0-9]{1,9}")
private val MASK = Regex("mask(?:_([0-9]{1,9}))?")

/** `k_<layer>` or `v_<layer>`. */
internal val TensorSpec.isCache get() = CACHE.matches(name)

internal val TensorSpec.isMask get() = name.startsWith("mask")

/** The sliding window that a mask is for, 0 for full attention, null if its name says none. */
internal val TensorSpec.window: Int?
    get() = MASK.matchEntire(name)?.run { groupValues[1].ifEmpty { "0" }.toInt() }

internal fun StaticForm.layout(cache: TensorSpec): Layout {
    val columns = channelsFirst && cache.name.startsWith("k")
    val place = cache.shape.size - if (columns) 1 else 2
    val outer = cache.shape.take(place).fold(1) { product, size -> product * size }
    return Layout(outer, cache.shape[place], if (columns) 1 else cache.shape.last())
}

/** Says where something is wrong: every refusal of [read] gets the place put before it. */
internal inline fun <T> within(place: String, read: () -> T): T = try {
    read()
} catch (error: ManifestRefused) {
    refuse("$place: ${error.message}")
}

internal fun demand(fine: Boolean, otherwise: String) {
    if (!fine) refuse(otherwise)
}

/** Checks that the methods are of the form: a wrong length would be read beyond its end. */
internal fun StaticForm.check() {
    check(prefill)
    check(decode)
    // Both methods share one cache, so they must describe it alike.
    val (one, other) = listOf(prefill, decode).map { method ->
        method.inputs.filter { it.isCache }.map { Triple(it.name, it.dtype, it.shape.toList()) }.toSet()
    }
    demand(one == other, "prefill and decode have other caches")
}

private fun StaticForm.check(method: MethodSpec) = within(method.name) {
    for (spec in method.inputs) within(spec.name) { check(method, spec) }
    demand(method.inputs.any { it.name == "tokens" }, "it takes no tokens")
    method.output("logits")
}

private fun StaticForm.check(method: MethodSpec, spec: TensorSpec) {
    val width = if (method === decode) 1 else prefillTokens
    when {
        spec.name == "tokens" || spec.name == "positions" -> {
            demand(spec.dtype == Dtype.INT32, "its dtype must be int32")
            demandShape(spec, 1, width)
        }
        spec.name == "write" -> demandShape(spec, 1, 1, width, past)
        spec.isMask -> {
            demand(spec.window in windows, "there is no such window in static.windows")
            val integers = spec.dtype.whole != null && spec.encoding == null
            demand(!integers, "a mask of integers needs an encoding")
            demandShape(spec, 1, 1, width, past + if (states) 0 else width)
        }
        else -> {
            demand(spec.isCache, "the static form knows no such input")
            checkCache(spec, method.outputs[method.output(spec.name)], width)
        }
    }
}

/** It has this shape, but may be longer in the last dimension. */
private fun demandShape(spec: TensorSpec, vararg shape: Int) {
    val leading = spec.shape.dropLast(1) == shape.dropLast(1)
    demand(leading && spec.shape.last() >= shape.last(), "its shape is not of the form")
}

/** A cache is read and written where its positions are, the rest is the same in and out. */
private fun StaticForm.checkCache(spec: TensorSpec, made: TensorSpec, width: Int) {
    demand(!states, "the program keeps its cache in states, and takes it too")
    val ranked = spec.shape.size >= 2 && made.shape.size == spec.shape.size
    demand(ranked, "what goes in and what comes out differ in rank")
    demand(made.dtype == spec.dtype, "what goes in and what comes out differ in dtype")
    val held = layout(spec)
    val fresh = layout(made)
    val fits = held.outer == fresh.outer && held.inner == fresh.inner &&
        held.positions >= past && fresh.positions >= width
    demand(fits, "its shapes are not of the form")
}
