package mobilepack.harness

/** Logits after one call of a teacher item; [position] is that of the last token fed. */
class Row(
    val item: String,
    val position: Int,
    val callTokens: Int,
    val nonFinite: Int = 0,
    val sampled: List<Float> = emptyList(),
    val topIds: List<Int> = emptyList(),
    val topLogits: List<Float> = emptyList(),
    val logsumexp: Float = 0f,
    val nextLogit: Float? = null,
)

/** Tokens of one generation; [decodeNs] has one time fewer than there are tokens. */
class Generated(
    val item: String,
    val tokenIds: List<Long>,
    val stopped: Boolean,
    val ttftNs: Long,
    val decodeNs: List<Long>,
)

/** Raw samples of one timed item: one prefill per repetition, one list of decode steps each. */
class Timing(val item: String, val prefillNs: List<Long>, val decodeNs: List<List<Long>>)

/** What the items brought back, in the order of the plan. */
class Outcome(
    val rows: List<Row>,
    val generated: List<Generated>,
    val timings: List<Timing>,
)

/** Resident memory of the process. */
class Memory(val beforeLoadBytes: Long, val afterLoadBytes: Long, val peakBytes: Long)

/**
 * Where the run happened.
 *
 * @property kind `host`, `emulator`, `simulator` or `device`.
 * @property representative Whether its timings may stand for a user's device.
 * @property conditions What changes is given twice, `<name>_before` and `<name>_after`.
 */
class Environment(
    val kind: String,
    val representative: Boolean,
    val name: String,
    val cpu: String,
    val threads: Int,
    val runtime: Map<String, String>,
    val conditions: Map<String, String>,
)

/** Everything one run brought back: `mobilepack/contract/run_result.py` is the contract's source. */
class RunResult(
    val planSha256: String,
    val loadNs: Long,
    val outcome: Outcome,
    val memory: Memory,
    val environment: Environment,
)
