package mobilepack.harness

/** Where time comes from: nanoseconds of a monotonic clock; tests bring their own. */
interface Clock {
    fun nowNs(): Long

    fun sleep(seconds: Double)
}

/** The machine's own clock. */
object SystemClock : Clock {
    override fun nowNs(): Long = System.nanoTime()

    override fun sleep(seconds: Double) = Thread.sleep((seconds * 1000).toLong())
}

/** Hears that item `done` of `total` begins; an empty name and `done == total` at the end. */
fun interface Progress {
    fun at(item: String, done: Int, total: Int)
}

/** Carries out every item in order. */
fun runItems(plan: RunPlan, engine: Engine, clock: Clock, progress: Progress): Outcome {
    val rows = mutableListOf<Row>()
    val generated = mutableListOf<Generated>()
    val timings = mutableListOf<Timing>()
    plan.items.forEachIndexed { done, item ->
        progress.at(item.name, done, plan.items.size)
        when (item) {
            is Teacher -> rows += teach(plan, item, engine)
            is Generate -> generated += generate(plan, item, engine, clock)
            is Time -> timings += time(plan, item, engine, clock)
        }
    }
    progress.at("", plan.items.size, plan.items.size)
    return Outcome(rows, generated, timings)
}

private fun teach(plan: RunPlan, item: Teacher, engine: Engine): List<Row> {
    var position = 0
    return item.calls.map { count ->
        val begin = position
        position += count
        val logits = engine.step(item.tokenIds.copyOfRange(begin, position), begin)
        row(plan, item.name, logits, begin, position, item.tokenIds.getOrNull(position))
    }
}

private fun generate(plan: RunPlan, item: Generate, engine: Engine, clock: Clock): Generated {
    var start = clock.nowNs()
    val ids = mutableListOf(greedy(engine.prefill(item.tokenIds, 0, plan.prefillChunk)))
    val ttftNs = clock.nowNs() - start
    val decodeNs = mutableListOf<Long>()
    while (ids.size < item.maxNewTokens && ids.last() !in item.stopIds) {
        start = clock.nowNs()
        val position = item.tokenIds.size + ids.size - 1
        ids += greedy(engine.step(longArrayOf(ids.last()), position))
        decodeNs += clock.nowNs() - start
    }
    return Generated(item.name, ids, ids.last() in item.stopIds, ttftNs, decodeNs)
}

private fun time(plan: RunPlan, item: Time, engine: Engine, clock: Clock): Timing {
    val ids = LongArray(item.positions.toInt()) { item.tokenIds[it % item.tokenIds.size] }
    val prefillNs = mutableListOf<Long>()
    val decodeNs = mutableListOf<List<Long>>()
    for (number in 0 until item.warmups + item.repetitions) {
        val counts = number >= item.warmups
        if (item.cooldownSeconds > 0 && (number == 0 || number > item.warmups)) {
            clock.sleep(item.cooldownSeconds)
        }
        // Again for every round: a recurrent state cannot be rewound.
        if (item.nDepth > 0) engine.prefill(ids.copyOf(item.nDepth), 0, plan.prefillChunk)
        val (promptNs, tokenNs) = round(plan, item, ids, engine, clock)
        if (counts && item.nPrompt > 0) prefillNs += promptNs
        if (counts) decodeNs.add(tokenNs)
    }
    return Timing(item.name, prefillNs, decodeNs)
}

private fun round(
    plan: RunPlan,
    item: Time,
    ids: LongArray,
    engine: Engine,
    clock: Clock,
): Pair<Long, List<Long>> {
    val position = item.nDepth + item.nPrompt
    val prompt = ids.copyOfRange(item.nDepth, position)
    val start = clock.nowNs()
    if (item.nPrompt > 0) engine.prefill(prompt, item.nDepth, plan.prefillChunk)
    val marks = mutableListOf(clock.nowNs())
    for (index in position until ids.size) {
        engine.step(longArrayOf(ids[index]), index)
        marks += clock.nowNs()
    }
    return marks[0] - start to marks.zipWithNext { before, after -> after - before }
}
