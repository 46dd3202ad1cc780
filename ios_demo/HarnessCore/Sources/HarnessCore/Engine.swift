/// A loaded program, as one call of the model; used by one thread.
public protocol Engine: AnyObject {
    /// Feeds tokens from a position on.
    ///
    /// - Parameters:
    ///   - tokens: 1 to the plan's `prefillChunk` ids.
    ///   - position: Of the first token, from 0; the KV cache holds everything before it.
    /// - Returns: Logits [vocabulary] of the last token.
    func step(_ tokens: ArraySlice<Int>, at position: Int) throws -> [Float]
}

extension Engine {
    /// Feeds any number of tokens in calls of `chunk`, the rest last; returns the last one's logits.
    func prefill(_ tokens: ArraySlice<Int>, at position: Int, chunk: Int) throws -> [Float] {
        var logits: [Float] = []
        var begin = tokens.startIndex
        while begin < tokens.endIndex {
            let end = min(begin + chunk, tokens.endIndex)
            logits = try step(tokens[begin..<end], at: position + begin - tokens.startIndex)
            begin = end
        }
        return logits
    }
}

/// The id of the largest logit, the lowest id of several.
func greedy(_ logits: [Float]) -> Int {
    var best = 0
    for id in logits.indices where logits[id] > logits[best] { best = id }
    return best
}

/// An engine whose program has a recurrent state: what a rewind would need is fed again.
///
/// A KV cache can be used up to any position, a state is where the last call left it
/// (docs/decisions/0014 of mobilepack).
public final class Refeeding: Engine {
    private let engine: Engine
    private let chunk: Int
    private var fed: [Int] = []

    public init(_ engine: Engine, chunk: Int) {
        self.engine = engine
        self.chunk = chunk
    }

    public func step(_ tokens: ArraySlice<Int>, at position: Int) throws -> [Float] {
        if position < fed.count {
            fed.removeSubrange(position...)
            if position > 0 { _ = try engine.prefill(fed[...], at: 0, chunk: chunk) }
        }
        fed += tokens
        return try engine.step(tokens, at: position)
    }
}
