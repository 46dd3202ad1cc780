import Foundation

/// Reduces the logits of a call that fed `positions` to a row of the result.
func row(
    _ plan: RunPlan, _ item: String, _ logits: [Float], _ positions: Range<Int>, next: Int?
) throws -> Row {
    let broken = logits.reduce(0) { $0 + ($1.isFinite ? 0 : 1) }
    let place = (item: item, position: positions.upperBound - 1, tokens: positions.count)
    guard broken == 0, !logits.isEmpty else {
        return Row(
            item: place.item, position: place.position, callTokens: place.tokens, nonFinite: broken)
    }
    let top = largest(logits, plan.topK)
    return Row(
        item: place.item,
        position: place.position,
        callTokens: place.tokens,
        sampled: try plan.sampleIds.map { try logit(logits, $0) },
        topIds: top,
        topLogits: top.map { logits[$0] },
        logsumexp: logsumexp(logits, peak: logits[top[0]]),
        nextLogit: try next.map { try logit(logits, $0) })
}

private func logit(_ logits: [Float], _ id: Int) throws -> Float {
    guard id < logits.count else {
        let why = "the plan names token id \(id), the program has \(logits.count)"
        throw PlanRefused(problems: [why])
    }
    return logits[id]
}

/// Ids of the largest, largest first, ties by lower id; 0.0 and -0.0 are equal.
private func largest(_ logits: [Float], _ count: Int) -> [Int] {
    let kept = min(count, logits.count)
    let least = logits.sorted(by: >)[kept - 1]
    let candidates = logits.indices.filter { logits[$0] >= least }
    let order = candidates.sorted { a, b in
        logits[a] == logits[b] ? a < b : logits[a] > logits[b]
    }
    return Array(order.prefix(kept))
}

private func logsumexp(_ logits: [Float], peak: Float) -> Float {
    let sum = logits.reduce(0.0) { $0 + exp(Double($1) - Double(peak)) }
    return Float(Double(peak) + log(sum))
}
