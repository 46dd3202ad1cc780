package mobilepack.harness

/** A place where plans run: the app's phone, or a test's toy. */
interface Platform {
    val clock: Clock

    /** Prepares memory's high-water mark; returns what it counts from, for the result. */
    fun resetPeak(): String

    fun residentBytes(): Long

    fun peakBytes(): Long

    /** Load average, frequencies and the like by name. */
    fun conditions(): Map<String, String>

    /** Loads the plan's program and prepares its method. */
    fun load(plan: RunPlan): Engine

    /** Describes itself; called with the program still loaded. */
    fun environment(plan: RunPlan, conditions: Map<String, String>): Environment
}

/**
 * Loads the program, carries out the plan and measures both.
 *
 * @param planBytes A run_plan.json as it was read.
 * @throws PlanRefused before anything is loaded, if the plan cannot be obeyed; later, if it names
 *   token ids that the program does not have.
 */
fun runPlan(planBytes: ByteArray, platform: Platform, progress: Progress): RunResult {
    val plan = readPlan(planBytes)
    val before = platform.conditions().mapKeys { "${it.key}_before" }
    val peak = platform.resetPeak()
    val beforeLoad = platform.residentBytes()
    val start = platform.clock.nowNs()
    val engine = platform.load(plan)
    val loadNs = platform.clock.nowNs() - start
    val afterLoad = platform.residentBytes()
    val outcome = runItems(plan, engine, platform.clock, progress)
    val memory = Memory(beforeLoad, afterLoad, platform.peakBytes())
    val after = platform.conditions().mapKeys { "${it.key}_after" }
    val conditions = before + after + ("peak_memory" to peak)
    val environment = platform.environment(plan, conditions)
    return RunResult(plan.sha256, loadNs, outcome, memory, environment)
}
