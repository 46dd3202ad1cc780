import Foundation

/// A place where plans run: the app's phone, or a machine that stands in for it.
public protocol Platform: AnyObject {
    var clock: Clock { get }

    /// What the system counts against the app's limit.
    func footprintBytes() -> UInt64

    /// The largest footprint so far.
    func peakBytes() -> UInt64

    /// What the system would still grant; 0 where it does not tell.
    func availableBytes() -> UInt64

    /// Thermal state, battery and the like by name.
    func conditions() -> [String: String]

    /// Loads the plan's program and prepares its method.
    func load(_ plan: RunPlan) throws -> Engine

    /// Where the program's operators run, if the system tells; asked last, for it takes seconds.
    func placement(_ plan: RunPlan) -> Placement?

    /// Whether a second load can find what the first left, and is worth a time of its own.
    func keepsLoads(_ plan: RunPlan) -> Bool

    /// Describes itself; called with the program still loaded.
    func environment(_ plan: RunPlan) -> Environment
}

/// Something that a run has to say while it goes on.
public enum Event {
    case loaded(ns: UInt64, threads: Int)
    case item(name: String, done: Int, total: Int)
    case memory(footprintBytes: UInt64, availableBytes: UInt64)
}

/// Loads the program, carries out the plan and measures both.
///
/// - Parameter planData: A run_plan.json as it was read.
/// - Throws: `PlanRefused` before anything is loaded, if the plan cannot be obeyed; later, if it
///   names token ids that the program does not have.
public func runPlan(
    _ planData: Data, on platform: Platform, _ tell: (Event) -> Void
) throws -> RunResult {
    let plan = try readPlan(planData)
    let before = platform.conditions()
    let beforeLoad = platform.footprintBytes()
    let cold = platform.keepsLoads(plan) ? try timedLoad(plan, platform).ns : nil
    let (engine, ns) = try timedLoad(plan, platform)
    let loadNs = cold ?? ns
    let afterLoad = platform.footprintBytes()
    let threads = platform.environment(plan).threads
    tell(.loaded(ns: loadNs, threads: threads))
    note(platform, tell)
    let outcome = try runItems(plan, engine, platform.clock) { name, done, total in
        tell(.item(name: name, done: done, total: total))
        note(platform, tell)
    }
    let memory = Memory(
        beforeLoadBytes: beforeLoad, afterLoadBytes: afterLoad, peakBytes: platform.peakBytes())
    return RunResult(
        planSha256: plan.sha256, loadNs: loadNs, cachedLoadNs: cold == nil ? nil : ns,
        outcome: outcome, memory: memory, environment: platform.environment(plan),
        conditions: twice(before, platform.conditions()), placement: platform.placement(plan))
}

private func timedLoad(
    _ plan: RunPlan, _ platform: Platform
) throws -> (engine: Engine, ns: UInt64) {
    let start = platform.clock.nowNs()
    let engine = try platform.load(plan)
    return (engine, platform.clock.nowNs() - start)
}

private func note(_ platform: Platform, _ tell: (Event) -> Void) {
    let available = platform.availableBytes()
    guard available > 0 else { return }
    tell(.memory(footprintBytes: platform.footprintBytes(), availableBytes: available))
}

private func twice(_ before: [String: String], _ after: [String: String]) -> [String: String] {
    var all: [String: String] = ["peak_memory": "since process start"]
    for (name, value) in before { all["\(name)_before"] = value }
    for (name, value) in after { all["\(name)_after"] = value }
    return all
}
