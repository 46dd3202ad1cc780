import Dispatch
import Foundation

/// Where time comes from: nanoseconds of a monotonic clock; tests bring their own.
public protocol Clock: AnyObject {
    func nowNs() -> UInt64
    func sleep(_ seconds: Double)
}

/// The machine's own clock, which stands still while the device sleeps.
public final class SystemClock: Clock {
    public init() {}

    public func nowNs() -> UInt64 { DispatchTime.now().uptimeNanoseconds }

    public func sleep(_ seconds: Double) { Thread.sleep(forTimeInterval: seconds) }
}

/// Hears that item `done` of `total` begins; an empty name and `done == total` at the end.
public typealias Progress = (_ item: String, _ done: Int, _ total: Int) -> Void

/// Carries out every item in order.
func runItems(
    _ plan: RunPlan, _ engine: Engine, _ clock: Clock, _ progress: Progress
) throws -> Outcome {
    var outcome = Outcome()
    for (done, item) in plan.items.enumerated() {
        progress(item.name, done, plan.items.count)
        switch item {
        case .teacher(let item): outcome.rows += try teach(plan, item, engine)
        case .generate(let item): outcome.generated.append(try generate(plan, item, engine, clock))
        case .time(let item): outcome.timings.append(try time(plan, item, engine, clock))
        }
    }
    progress("", plan.items.count, plan.items.count)
    return outcome
}

private func teach(_ plan: RunPlan, _ item: Teacher, _ engine: Engine) throws -> [Row] {
    var position = 0
    return try item.calls.map { count in
        let positions = position..<position + count
        position += count
        let logits = try engine.step(item.tokenIds[positions], at: positions.lowerBound)
        let next = position < item.tokenIds.count ? item.tokenIds[position] : nil
        return try row(plan, item.name, logits, positions, next: next)
    }
}

private func generate(
    _ plan: RunPlan, _ item: Generate, _ engine: Engine, _ clock: Clock
) throws -> Generated {
    var start = clock.nowNs()
    let first = try engine.prefill(item.tokenIds[...], at: 0, chunk: plan.prefillChunk)
    var ids = [greedy(first)]
    let ttftNs = clock.nowNs() - start
    var decodeNs: [UInt64] = []
    while let last = ids.last, ids.count < item.maxNewTokens, !item.stopIds.contains(last) {
        start = clock.nowNs()
        let position = item.tokenIds.count + ids.count - 1
        ids.append(greedy(try engine.step([last], at: position)))
        decodeNs.append(clock.nowNs() - start)
    }
    return Generated(
        item: item.name, tokenIds: ids, stopped: ids.last.map(item.stopIds.contains) ?? false,
        ttftNs: ttftNs, decodeNs: decodeNs)
}

private func time(
    _ plan: RunPlan, _ item: Time, _ engine: Engine, _ clock: Clock
) throws -> Timing {
    let ids = (0..<Item.time(item).positions).map { item.tokenIds[$0 % item.tokenIds.count] }
    var prefillNs: [UInt64] = []
    var decodeNs: [[UInt64]] = []
    for number in 0..<item.warmups + item.repetitions {
        if item.cooldownSeconds > 0 && (number == 0 || number > item.warmups) {
            clock.sleep(item.cooldownSeconds)
        }
        // Again for every round: a recurrent state cannot be rewound.
        if item.depth > 0 {
            _ = try engine.prefill(ids[..<item.depth], at: 0, chunk: plan.prefillChunk)
        }
        let (promptNs, tokenNs) = try round(plan, item, ids, engine, clock)
        guard number >= item.warmups else { continue }
        if item.prompt > 0 { prefillNs.append(promptNs) }
        decodeNs.append(tokenNs)
    }
    return Timing(item: item.name, prefillNs: prefillNs, decodeNs: decodeNs)
}

private func round(
    _ plan: RunPlan, _ item: Time, _ ids: [Int], _ engine: Engine, _ clock: Clock
) throws -> (UInt64, [UInt64]) {
    let position = item.depth + item.prompt
    let start = clock.nowNs()
    if item.prompt > 0 {
        let prompt = ids[item.depth..<position]
        _ = try engine.prefill(prompt, at: item.depth, chunk: plan.prefillChunk)
    }
    var marks = [clock.nowNs()]
    for index in position..<ids.count {
        _ = try engine.step([ids[index]], at: index)
        marks.append(clock.nowNs())
    }
    return (marks[0] - start, zip(marks.dropFirst(), marks).map { $0 - $1 })
}
