/// One item of a run plan; token ids are those of the package's tokenizer, positions start at 0.
enum Item {
    case teacher(Teacher)
    case generate(Generate)
    case time(Time)

    /// Unique within the plan; whatever comes back carries it.
    var name: String {
        switch self {
        case .teacher(let item): return item.name
        case .generate(let item): return item.name
        case .time(let item): return item.name
        }
    }

    /// Positions of the KV cache that the item needs.
    var positions: Int {
        switch self {
        case .teacher(let item): return item.calls.reduce(0, +)
        case .generate(let item): return item.tokenIds.count + item.maxNewTokens - 1
        case .time(let item): return item.depth + item.prompt + item.generate
        }
    }
}

/// Feeds fixed ids in `calls` of so many ids each, and records the logits after each call.
struct Teacher {
    let name: String
    let tokenIds: [Int]
    let calls: [Int]
}

/// Greedy generation until a stop id or `maxNewTokens`; of equal logits the lower id wins.
struct Generate {
    let name: String
    let tokenIds: [Int]
    let maxNewTokens: Int
    let stopIds: Set<Int>
}

/// Times a prefill of `prompt` and `generate` decode steps with `depth` tokens already cached.
///
/// The token fed at position p is `tokenIds[p % tokenIds.count]`.
struct Time {
    let name: String
    let tokenIds: [Int]
    let prompt: Int
    let generate: Int
    let depth: Int
    let warmups: Int
    let repetitions: Int
    let cooldownSeconds: Double
}

/// What a harness is asked to run: `mobilepack/contract/run_plan.py` is the contract's source.
public struct RunPlan {
    /// Hex, of the bytes that were read.
    public let sha256: String
    /// Path of the program relative to the package.
    public let program: String
    public let method: String
    public let maxSeqLen: Int
    public let prefillChunk: Int
    /// Threads of the runtime's pool; 0 keeps the harness' own choice.
    public let threads: Int
    let sampleIds: [Int]
    let topK: Int
    let items: [Item]

    public var itemCount: Int { items.count }
}

/// A plan that cannot be obeyed; `problems` names every reason that was found.
public struct PlanRefused: Error, CustomStringConvertible {
    public let problems: [String]

    public init(problems: [String]) {
        self.problems = problems
    }

    public var description: String { problems.joined(separator: "; ") }
}
