package mobilepack.harness

/** One item of a run plan; token ids are those of the package's tokenizer, positions start at 0. */
sealed interface Item {
    /** Unique within the plan; whatever comes back carries it. */
    val name: String
    val tokenIds: LongArray

    /** Positions of the KV cache that the item needs. */
    val positions: Long
}

/** Feeds fixed ids in [calls] of so many ids each, and records the logits after each call. */
class Teacher(
    override val name: String,
    override val tokenIds: LongArray,
    val calls: IntArray,
) : Item {
    override val positions get() = calls.sumOf { it.toLong() }
}

/** Greedy generation until a stop id or [maxNewTokens]; of equal logits the lower id wins. */
class Generate(
    override val name: String,
    override val tokenIds: LongArray,
    val maxNewTokens: Int,
    val stopIds: Set<Long>,
) : Item {
    /** The last new token is never fed. */
    override val positions get() = tokenIds.size.toLong() + maxNewTokens - 1
}

/**
 * Times a prefill of [nPrompt] and [nGen] decode steps with [nDepth] tokens already cached.
 *
 * The token fed at position p is `tokenIds[p % tokenIds.size]`.
 */
class Time(
    override val name: String,
    override val tokenIds: LongArray,
    val nPrompt: Int,
    val nGen: Int,
    val nDepth: Int,
    val warmups: Int,
    val repetitions: Int,
    val cooldownSeconds: Double,
) : Item {
    override val positions get() = nDepth.toLong() + nPrompt + nGen
}

/**
 * What a harness is asked to run: `mobilepack/contract/run_plan.py` is the contract's source.
 *
 * @property sha256 Hex, of the bytes that were read.
 * @property program Path of the program relative to the package.
 * @property threads Threads of the runtime's pool; 0 keeps the harness' own choice.
 */
class RunPlan(
    val sha256: String,
    val program: String,
    val method: String,
    val maxSeqLen: Int,
    val prefillChunk: Int,
    val sampleIds: LongArray,
    val topK: Int,
    val threads: Int,
    val items: List<Item>,
)

/** What was given cannot be used; the message says why. */
abstract class Refused(message: String) : Exception(message)

/** A plan that cannot be obeyed; [problems] names every reason that was found. */
class PlanRefused(val problems: List<String>) : Refused(problems.joinToString("; "))
