package mobilepack.harness

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.FloatBuffer

/** What a method returned; valid until the next one is run. */
fun interface Outputs {
    /** Copies all numbers of an output to a buffer of their type, from its beginning. */
    fun copy(index: Int, to: Buffer)
}

/** Runs a loaded program's methods. */
fun interface Methods {
    /** @param inputs In order; for each method the same objects in every call. */
    fun run(method: MethodSpec, inputs: List<Numbers>): Outputs
}

/**
 * Feeds the static form: masks, positions, padding, and the cache that the caller keeps.
 *
 * What `mobilepack/models/static_session.py` does, to the last bit. Rewinding is free, for positions
 * say what of the cache counts. The program reads the cache where it lies; a call copies the keys
 * and values of its own tokens, out of the program and into the cache, and the logits once.
 */
class StaticSession(private val form: StaticForm, private val methods: Methods) : Engine {
    private val caches = form.decode.inputs.filter { it.isCache }
        .associate { spec -> spec.name to Numbers(spec).also { it.fill(0, spec.count, 0f) } }
    private val prefill = Bound(form.prefill)
    private val decode = Bound(form.decode)

    /** A method with the memory of its inputs, and of what it returns for the cache. */
    private inner class Bound(val method: MethodSpec) {
        val inputs = method.inputs.map { if (it.isCache) caches.getValue(it.name) else Numbers(it) }
        val fresh = method.inputs.filter { it.isCache }.map { spec ->
            val index = method.output(spec.name)
            Fresh(index, caches.getValue(spec.name), Numbers(method.outputs[index]))
        }
        val logits = method.output("logits")
    }

    /** Where output [index] is taken to on its way into a cache. */
    private inner class Fresh(val index: Int, val cache: Numbers, val made: Numbers) {
        val held = form.layout(cache.spec)
        val given = form.layout(made.spec)
        val from: ByteBuffer = made.bytes.duplicate()
        val to: ByteBuffer = cache.bytes.duplicate()
    }

    private class Call(val tokens: LongArray, val position: Int, width: Int) {
        val count = tokens.size
        val padding = width - count
    }

    /** @throws PlanRefused if there are more tokens than one call takes, or positions that the cache lacks. */
    override fun step(tokens: LongArray, position: Int): FloatArray {
        val width = if (tokens.size == 1) 1 else form.prefillTokens
        // States must hold every position; else the very last one is never read again.
        val end = if (form.states) position + tokens.size else position
        if (tokens.size > width || end > form.past) {
            throw PlanRefused(listOf("${tokens.size} tokens from position $position on do not fit"))
        }
        val bound = if (tokens.size == 1) decode else prefill
        val call = Call(tokens, position, width)
        for (input in bound.inputs) if (!input.spec.isCache) write(input, call)
        val made = methods.run(bound.method, bound.inputs)
        for (fresh in bound.fresh) {
            made.copy(fresh.index, fresh.made.view.rewind())
            store(fresh, call)
        }
        return logits(bound, made)
    }

    private fun logits(bound: Bound, made: Outputs): FloatArray {
        val spec = bound.method.outputs[bound.logits]
        if (spec.dtype == Dtype.FLOAT32) {
            return FloatArray(spec.count).also { made.copy(bound.logits, FloatBuffer.wrap(it)) }
        }
        return Numbers(spec).also { made.copy(bound.logits, it.view) }.decoded()
    }

    private fun write(to: Numbers, call: Call) {
        if (to.spec.isMask) return writeMask(to, call)
        to.fill(0, to.spec.count, 0f)
        val columns = to.spec.shape.last()
        for (n in 0 until call.count) {
            when (to.spec.name) {
                "write" -> to.fill((call.padding + n) * columns + call.position + n, 1, 1f)
                "tokens" -> to.bytes.putInt(4 * (columns - call.count + n), call.tokens[n].toInt())
                else -> to.bytes.putInt(4 * (columns - call.count + n), call.position + n)
            }
        }
    }

    /**
     * 0 where a query may look, else the mask value. Padded queries see what the first real one
     * sees, so that no row is without a key.
     */
    private fun writeMask(to: Numbers, call: Call) {
        val (rows, columns) = to.spec.shape.takeLast(2)
        val window = to.spec.window.takeIf { it != 0 } ?: Int.MAX_VALUE
        to.fill(0, rows * columns, form.maskValue)
        for (row in 0 until rows) {
            val own = maxOf(row - call.padding, 0) // among the call's tokens
            val at = call.position + own
            val first = maxOf(at - window + 1, 0)
            val last = minOf(if (form.states) at + 1 else call.position, form.past)
            to.fill(row * columns + first, maxOf(last - first, 0), 0f)
            if (form.states) continue
            val begin = maxOf(own - window + 1, 0)
            to.fill(row * columns + form.past + call.padding + begin, own + 1 - begin, 0f)
        }
    }

    private fun store(fresh: Fresh, call: Call) {
        val piece = fresh.held.inner * fresh.cache.spec.dtype.bytes
        val kept = (minOf(call.position + call.count, form.past) - call.position) * piece
        for (n in 0 until fresh.held.outer) {
            val first = (n * fresh.given.positions + fresh.given.positions - call.count) * piece
            val place = (n * fresh.held.positions + call.position) * piece
            span(fresh.from, first, first + kept)
            span(fresh.to, place, place + kept)
            fresh.to.put(fresh.from)
        }
    }
}

/** By way of [Buffer]: Android 9 has no `ByteBuffer.limit` that returns a `ByteBuffer`. */
private fun span(buffer: Buffer, first: Int, end: Int) {
    buffer.limit(end)
    buffer.position(first)
}
