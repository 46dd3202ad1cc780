import HarnessCore

/// The model of mobilepack's `ToyModel`, exact in any language: the state after tokens t_0 … t_p is
/// `s = (s * 31 + t + 7) mod 1009` from 1, the logit of id v is `((s * (v + 3) + v * v) mod 257) / 16`.
/// Each position's state is kept, as a KV cache would.
public final class ToyEngine: Engine {
    private let vocabulary: Int
    private let broken: Bool
    private var states = [-1: 1]

    /// - Parameter broken: Whether two of its logits are no numbers.
    public init(vocabulary: Int = 61, broken: Bool = false) {
        self.vocabulary = vocabulary
        self.broken = broken
    }

    public func step(_ tokens: ArraySlice<Int>, at position: Int) throws -> [Float] {
        guard var state = states[position - 1] else {
            throw PlanRefused(problems: ["nothing was fed before position \(position)"])
        }
        for (offset, token) in tokens.enumerated() {
            state = (state * 31 + token + 7) % 1009
            states[position + offset] = state
        }
        var logits = (0..<vocabulary).map { Float((state * ($0 + 3) + $0 * $0) % 257) / 16 }
        if broken { (logits[3], logits[4]) = (.nan, -.infinity) }
        return logits
    }
}

/// Advances by 1000 ns whenever it is read, and never sleeps.
public final class TickingClock: Clock {
    private var now: UInt64 = 0

    public init() {}

    public func nowNs() -> UInt64 {
        now += 1000
        return now
    }

    public func sleep(_ seconds: Double) {}
}

/// What mobilepack's `FakeHarness` says of itself.
public final class ToyPlatform: Platform {
    public let clock: Clock = TickingClock()
    private let engine: Engine
    private let keeps: Bool
    private var loaded = false

    public init(_ engine: Engine = ToyEngine(), keeps: Bool = false) {
        self.engine = engine
        self.keeps = keeps
    }

    public func footprintBytes() -> UInt64 { loaded ? 3000 : 1000 }

    public func peakBytes() -> UInt64 { 5000 }

    public func availableBytes() -> UInt64 { 0 }

    public func conditions() -> [String: String] { ["thermal_state": "nominal"] }

    public func load(_ plan: RunPlan) throws -> Engine {
        loaded = true
        return engine
    }

    public func placement(_ plan: RunPlan) -> Placement? { keeps ? Self.placement : nil }

    public func keepsLoads(_ plan: RunPlan) -> Bool { keeps }

    public func environment(_ plan: RunPlan) -> Environment {
        Environment(
            kind: "host", representative: false, name: "fake", cpu: "none",
            threads: plan.threads == 0 ? 1 : plan.threads, runtime: ["fake": "1"])
    }

    private static let placement = Placement(
        device: "iPhone16,1", system: "iOS 18.5", computeUnits: "cpu_and_ne",
        functions: [
            (
                name: "decode",
                operators: [
                    OperatorPlacement(
                        name: "conv", output: "logits", preferred: "ane",
                        supported: ["cpu", "ane"], cost: 0.75),
                    OperatorPlacement(
                        name: "gather", output: "x", preferred: "cpu", supported: ["cpu"],
                        cost: nil),
                ]
            )
        ])
}
