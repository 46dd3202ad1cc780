extension RunResult {
    /// The run_result.json, on one line.
    public func json() -> String {
        var writer = JsonWriter()
        writer.object { out in
            out.field("schema") { $0.string("mobilepack/run-result/1") }
            out.field("plan_sha256") { $0.string(planSha256) }
            out.field("load_ns") { $0.int(loadNs) }
            if let cachedLoadNs { out.field("cached_load_ns") { $0.int(cachedLoadNs) } }
            out.field("rows") { $0.list(outcome.rows, write) }
            out.field("generated") { $0.list(outcome.generated, write) }
            out.field("timings") { $0.list(outcome.timings, write) }
            out.field("memory") { write(&$0, memory) }
            out.field("environment") { write(&$0, environment, conditions) }
            if let placement { out.field("placement") { write(&$0, placement) } }
        }
        return writer.text + "\n"
    }
}

extension JsonWriter {
    fileprivate mutating func field(_ name: String, _ value: (inout JsonWriter) -> Void) {
        key(name)
        value(&self)
    }

    fileprivate mutating func texts(_ values: [String: String]) {
        object { out in
            for (name, value) in values.sorted(by: { $0.key < $1.key }) {
                out.field(name) { $0.string(value) }
            }
        }
    }
}

private func write(_ out: inout JsonWriter, _ row: Row) {
    out.object { out in
        out.field("item") { $0.string(row.item) }
        out.field("position") { $0.int(row.position) }
        out.field("call_tokens") { $0.int(row.callTokens) }
        out.field("non_finite") { $0.int(row.nonFinite) }
        out.field("sampled") { $0.list(row.sampled) { $0.float($1) } }
        out.field("top_ids") { $0.list(row.topIds) { $0.int($1) } }
        out.field("top_logits") { $0.list(row.topLogits) { $0.float($1) } }
        out.field("logsumexp") { $0.float(row.logsumexp) }
        out.field("next_logit") { out in
            if let next = row.nextLogit { out.float(next) } else { out.null() }
        }
    }
}

private func write(_ out: inout JsonWriter, _ one: Generated) {
    out.object { out in
        out.field("item") { $0.string(one.item) }
        out.field("token_ids") { $0.list(one.tokenIds) { $0.int($1) } }
        out.field("stopped") { $0.bool(one.stopped) }
        out.field("ttft_ns") { $0.int(one.ttftNs) }
        out.field("decode_ns") { $0.list(one.decodeNs) { $0.int($1) } }
    }
}

private func write(_ out: inout JsonWriter, _ one: Timing) {
    out.object { out in
        out.field("item") { $0.string(one.item) }
        out.field("prefill_ns") { $0.list(one.prefillNs) { $0.int($1) } }
        out.field("decode_ns") { $0.list(one.decodeNs) { $0.list($1) { $0.int($1) } } }
    }
}

private func write(_ out: inout JsonWriter, _ memory: Memory) {
    out.object { out in
        out.field("before_load_bytes") { $0.int(memory.beforeLoadBytes) }
        out.field("after_load_bytes") { $0.int(memory.afterLoadBytes) }
        out.field("peak_bytes") { $0.int(memory.peakBytes) }
    }
}

private func write(
    _ out: inout JsonWriter, _ environment: Environment, _ conditions: [String: String]
) {
    out.object { out in
        out.field("kind") { $0.string(environment.kind) }
        out.field("representative") { $0.bool(environment.representative) }
        out.field("name") { $0.string(environment.name) }
        out.field("cpu") { $0.string(environment.cpu) }
        out.field("threads") { $0.int(environment.threads) }
        out.field("runtime") { $0.texts(environment.runtime) }
        out.field("conditions") { $0.texts(conditions) }
    }
}

private func write(_ out: inout JsonWriter, _ placement: Placement) {
    out.object { out in
        out.field("schema") { $0.string("mobilepack/placement/1") }
        out.field("device") { $0.string(placement.device) }
        out.field("system") { $0.string(placement.system) }
        out.field("compute_units") { $0.string(placement.computeUnits) }
        out.field("functions") { out in
            out.list(placement.functions) { out, function in
                out.object { out in
                    out.field("name") { $0.string(function.name) }
                    out.field("operators") { $0.list(function.operators, write) }
                }
            }
        }
    }
}

private func write(_ out: inout JsonWriter, _ one: OperatorPlacement) {
    out.object { out in
        out.field("operator") { $0.string(one.name) }
        out.field("output") { $0.string(one.output) }
        out.field("preferred") { $0.string(one.preferred) }
        out.field("supported") { $0.list(one.supported) { $0.string($1) } }
        if let cost = one.cost { out.field("cost") { $0.double(cost) } }
    }
}
