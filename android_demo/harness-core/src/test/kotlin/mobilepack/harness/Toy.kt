package mobilepack.harness

import java.io.File
import kotlin.system.exitProcess

/**
 * The model of `mobilepack/testing.py` `ToyModel`, exact in any language: the state after tokens
 * t_0 … t_p is `s = (s * 31 + t + 7) mod 1009` from 1, the logit of id v is
 * `((s * (v + 3) + v * v) mod 257) / 16`. Each position's state is kept, as a KV cache would.
 */
class ToyEngine(private val vocabulary: Int = 61) : Engine {
    private val states = mutableMapOf(-1 to 1L)

    fun state(position: Int) = states.getValue(position).toFloat()

    fun restore(position: Int, state: Long) {
        states[position] = state
    }

    override fun step(tokens: LongArray, position: Int): FloatArray {
        var state = states.getValue(position - 1)
        tokens.forEachIndexed { offset, token ->
            state = (state * 31 + token + 7) % 1009
            states[position + offset] = state
        }
        return FloatArray(vocabulary) { v -> ((state * (v + 3) + v * v) % 257) / 16f }
    }
}

/** Advances by [TICK_NS] whenever it is read, and never sleeps. */
class TickingClock : Clock {
    private var now = 0L

    override fun nowNs(): Long {
        now += TICK_NS
        return now
    }

    override fun sleep(seconds: Double) = Unit
}

private const val TICK_NS = 1000L

/** What `mobilepack.testing.FakeHarness` says of itself. */
class ToyPlatform(private val engine: Engine = ToyEngine()) : Platform {
    override val clock = TickingClock()
    private var loaded = false

    override fun resetPeak() = "since before the load"

    override fun residentBytes() = if (loaded) 3000L else 1000L

    override fun peakBytes() = 5000L

    override fun conditions() = mapOf("load_average" to "0.00")

    override fun load(plan: RunPlan): Engine {
        loaded = true
        return engine
    }

    override fun environment(plan: RunPlan, conditions: Map<String, String>) = Environment(
        kind = "host",
        representative = false,
        name = "fake",
        cpu = "none",
        threads = if (plan.threads == 0) 1 else plan.threads,
        runtime = mapOf("fake" to "1"),
        conditions = conditions,
    )
}

/** `PLAN RESULT [nan] [static]`: carries out a plan with the toy; exit code 1 and the reasons if refused. */
fun main(arguments: Array<String>) {
    val (plan, result) = arguments
    val toy = if ("static" in arguments) staticToy() else ToyEngine()
    val engine = if ("nan" in arguments) Engine { tokens, at -> broken(toy.step(tokens, at)) } else toy
    try {
        val found = runPlan(File(plan).readBytes(), ToyPlatform(engine)) { item, done, total ->
            println("$done/$total $item")
        }
        File(result).writeText(found.toJson())
    } catch (error: PlanRefused) {
        error.problems.forEach(::println)
        exitProcess(1)
    }
}

private fun broken(logits: FloatArray) = logits.also {
    it[3] = Float.NaN
    it[4] = Float.NEGATIVE_INFINITY
}
