/// Logits after one call of a teacher item; `position` is that of the last token fed.
struct Row {
    let item: String
    let position: Int
    let callTokens: Int
    var nonFinite = 0
    var sampled: [Float] = []
    var topIds: [Int] = []
    var topLogits: [Float] = []
    var logsumexp: Float = 0
    var nextLogit: Float?
}

/// Tokens of one generation; `decodeNs` has one time fewer than there are tokens.
struct Generated {
    let item: String
    let tokenIds: [Int]
    let stopped: Bool
    let ttftNs: UInt64
    let decodeNs: [UInt64]
}

/// Raw samples of one timed item: one prefill per repetition, one list of decode steps each.
struct Timing {
    let item: String
    let prefillNs: [UInt64]
    let decodeNs: [[UInt64]]
}

/// What the items brought back, in the order of the plan.
struct Outcome {
    var rows: [Row] = []
    var generated: [Generated] = []
    var timings: [Timing] = []
}

/// Memory of the process: what the system counts against its limit.
struct Memory {
    let beforeLoadBytes: UInt64
    let afterLoadBytes: UInt64
    let peakBytes: UInt64
}

/// Where the run happened.
public struct Environment {
    /// `host`, `simulator` or `device`.
    public let kind: String
    /// Whether its timings may stand for a user's device.
    public let representative: Bool
    public let name: String
    public let cpu: String
    public let threads: Int
    public let runtime: [String: String]

    public init(
        kind: String, representative: Bool, name: String, cpu: String, threads: Int,
        runtime: [String: String]
    ) {
        self.kind = kind
        self.representative = representative
        self.name = name
        self.cpu = cpu
        self.threads = threads
        self.runtime = runtime
    }
}

/// Where one operator runs: `mobilepack/contract/placement.py` is the contract's source.
public struct OperatorPlacement {
    public let name: String
    public let output: String
    /// `cpu`, `gpu` or `ane`.
    public let preferred: String
    public let supported: [String]
    /// Its share of the function's estimated cost, 0 to 1.
    public let cost: Double?

    public init(
        name: String, output: String, preferred: String, supported: [String], cost: Double?
    ) {
        self.name = name
        self.output = output
        self.preferred = preferred
        self.supported = supported
        self.cost = cost
    }
}

/// Where a device runs a program's operators, as `MLComputePlan` says.
public struct Placement {
    /// Model identifier, such as `iPhone16,1`.
    public let device: String
    public let system: String
    /// `all`, `cpu_and_ne`, `cpu_and_gpu` or `cpu_only`.
    public let computeUnits: String
    public let functions: [(name: String, operators: [OperatorPlacement])]

    public init(
        device: String, system: String, computeUnits: String,
        functions: [(name: String, operators: [OperatorPlacement])]
    ) {
        self.device = device
        self.system = system
        self.computeUnits = computeUnits
        self.functions = functions
    }
}

/// Everything one run brought back: `mobilepack/contract/run_result.py` is the contract's source.
public struct RunResult {
    let planSha256: String
    let loadNs: UInt64
    let cachedLoadNs: UInt64?
    let outcome: Outcome
    let memory: Memory
    let environment: Environment
    let conditions: [String: String]
    let placement: Placement?
}
