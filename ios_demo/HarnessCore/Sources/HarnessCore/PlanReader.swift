import Foundation

private let schema = "mobilepack/run-plan/1"

/// Reads a run_plan.json.
///
/// - Throws: `PlanRefused` if the bytes are no plan, or one that cannot be carried out.
public func readPlan(_ data: Data) throws -> RunPlan {
    let problems = Problems()
    let plan = plan(Fields("", try parsed(data), problems), sha256(data), problems)
    if problems.all.isEmpty { misfits(plan).forEach(problems.add) }
    guard problems.all.isEmpty else { throw PlanRefused(problems: problems.all) }
    return plan
}

private func parsed(_ data: Data) throws -> [String: Json] {
    do {
        if case .object(let fields) = try JsonReader.read(data) { return fields }
    } catch let error as JsonError {
        throw PlanRefused(problems: ["the plan is no JSON: \(error)"])
    }
    throw PlanRefused(problems: ["the plan is no JSON object"])
}

private func plan(_ fields: Fields, _ sha256: String, _ problems: Problems) -> RunPlan {
    if fields.text("schema", otherwise: schema) != schema {
        fields.wrong("schema", "is not \(schema)")
    }
    // A permission to keep packed weights on the device, which this harness never uses.
    let cache = fields.text("weight_cache", otherwise: "")
    if !(cache.isEmpty || isChecksum(cache)) {
        fields.wrong("weight_cache", "is neither empty nor a sha256")
    }
    let plan = RunPlan(
        sha256: sha256,
        program: fields.text("program", otherwise: "model.pte"),
        method: fields.text("method", otherwise: "forward"),
        maxSeqLen: fields.whole("max_seq_len", atLeast: 1),
        prefillChunk: fields.whole("prefill_chunk", atLeast: 1),
        threads: fields.whole("threads", atLeast: 0, otherwise: 0),
        sampleIds: fields.wholes("sample_ids", atLeast: 0, required: false),
        topK: fields.whole("top_k", atLeast: 1, otherwise: 64),
        items: fields.objects("items").enumerated().compactMap { number, source in
            item(Fields("items.\(number).", source, problems))
        }
    )
    fields.refuseUnknown()
    return plan
}

private func isChecksum(_ text: String) -> Bool {
    text.utf8.count == 64 && text.allSatisfy { $0.isHexDigit && !$0.isUppercase }
}

private func item(_ fields: Fields) -> Item? {
    let kind = fields.text("kind")
    let name = fields.text("name")
    if name.isEmpty { fields.wrong("name", "is empty") }
    let ids = fields.wholes("token_ids", atLeast: 0, required: true)
    let found: Item
    switch kind {
    case "teacher":
        let calls = fields.wholes("calls", atLeast: 1, required: true)
        found = .teacher(Teacher(name: name, tokenIds: ids, calls: calls))
    case "generate":
        let item = Generate(
            name: name,
            tokenIds: ids,
            maxNewTokens: fields.whole("max_new_tokens", atLeast: 1),
            stopIds: Set(fields.wholes("stop_ids", atLeast: 0, required: false)))
        found = .generate(item)
    case "time":
        found = .time(time(name, ids, fields))
    default:
        fields.wrong("kind", "unknown kind '\(kind)'")
        return nil
    }
    fields.refuseUnknown()
    return found
}

private func time(_ name: String, _ ids: [Int], _ fields: Fields) -> Time {
    Time(
        name: name,
        tokenIds: ids,
        prompt: fields.whole("n_prompt", atLeast: 0),
        generate: fields.whole("n_gen", atLeast: 0),
        depth: fields.whole("n_depth", atLeast: 0, otherwise: 0),
        warmups: fields.whole("warmups", atLeast: 0, otherwise: 1),
        repetitions: fields.whole("repetitions", atLeast: 1, otherwise: 5),
        cooldownSeconds: fields.seconds("cooldown_s"))
}

private func misfits(_ plan: RunPlan) -> [String] {
    var names: [String: Int] = [:]
    for item in plan.items { names[item.name, default: 0] += 1 }
    let twice = names.filter { $0.value > 1 }.keys.sorted()
    return plan.items.flatMap { misfits(plan, $0) } + twice.map { "two items are named '\($0)'" }
}

private func misfits(_ plan: RunPlan, _ item: Item) -> [String] {
    var found: [String] = []
    if item.positions > plan.maxSeqLen {
        found.append("\(item.name) needs \(item.positions) positions of \(plan.maxSeqLen)")
    }
    switch item {
    case .teacher(let teacher):
        if item.positions > teacher.tokenIds.count {
            found.append("\(item.name) feeds \(item.positions) of \(teacher.tokenIds.count) ids")
        }
        if teacher.calls.contains(where: { $0 > plan.prefillChunk }) {
            found.append("\(item.name) has a call longer than \(plan.prefillChunk)")
        }
    case .time(let time) where time.prompt + time.generate == 0:
        found.append("\(item.name) times nothing: n_prompt and n_gen are both 0")
    default: break
    }
    return found
}
