import Foundation

private let largest = Int(Int32.max)

/// The fields of one JSON object, read strictly: wrong, missing and unknown ones become problems.
///
/// A reader returns a harmless value beside a problem, so that one pass finds all of them; nobody
/// may use what was read while there are problems.
final class Fields {
    private let place: String
    private let source: [String: Json]
    private let problems: Problems
    private var asked: Set<String> = []

    init(_ place: String, _ source: [String: Json], _ problems: Problems) {
        self.place = place
        self.source = source
        self.problems = problems
    }

    func text(_ key: String, otherwise: String? = nil) -> String {
        guard let value = value(key, required: otherwise == nil) else { return otherwise ?? "" }
        if case .text(let text) = value { return text }
        return wrong(key, "must be text", instead: "")
    }

    func whole(_ key: String, atLeast least: Int, otherwise: Int? = nil) -> Int {
        guard let value = value(key, required: otherwise == nil) else { return otherwise ?? least }
        guard let number = whole(value), number >= least, number <= largest else {
            return wrong(key, "must be an integer from \(least) to \(largest)", instead: least)
        }
        return number
    }

    /// Integers below 2^31, as token ids are; required ones may not be empty.
    func wholes(_ key: String, atLeast least: Int, required: Bool) -> [Int] {
        guard let value = value(key, required: required) else { return [] }
        guard case .list(let values) = value else {
            return wrong(key, "must be a list", instead: [])
        }
        let found = values.compactMap { whole($0) }.filter { $0 >= least && $0 <= largest }
        guard found.count == values.count else {
            return wrong(key, "holds what is no integer from \(least) to \(largest)", instead: [])
        }
        guard !required || !found.isEmpty else { return wrong(key, "is empty", instead: []) }
        return found
    }

    func seconds(_ key: String) -> Double {
        guard let value = value(key, required: false) else { return 0 }
        if case .number(let text) = value, let number = Double(text), number >= 0, number.isFinite {
            return number
        }
        return wrong(key, "must be a number of at least 0", instead: 0)
    }

    func objects(_ key: String) -> [[String: Json]] {
        guard let value = value(key, required: true) else { return [] }
        var found: [[String: Json]] = []
        if case .list(let values) = value {
            for case .object(let one) in values { found.append(one) }
            if found.count == values.count {
                return found.isEmpty ? wrong(key, "is empty", instead: []) : found
            }
        }
        return wrong(key, "must be a list of objects", instead: [])
    }

    /// A field that a file has and nobody asked for could change what the plan means.
    func refuseUnknown() {
        for key in source.keys.sorted() where !asked.contains(key) {
            wrong(key, "unknown field")
        }
    }

    func wrong(_ key: String, _ why: String) {
        problems.add("\(place)\(key): \(why)")
    }

    private func wrong<Value>(_ key: String, _ why: String, instead: Value) -> Value {
        wrong(key, why)
        return instead
    }

    private func value(_ key: String, required: Bool) -> Json? {
        asked.insert(key)
        let found = source[key]
        if found == nil && required { wrong(key, "is missing") }
        return found
    }

    private func whole(_ value: Json) -> Int? {
        guard case .number(let text) = value else { return nil }
        return text == "-0" ? nil : Int(text)
    }
}

/// What is wrong with a plan, in the order in which it was found.
final class Problems {
    private(set) var all: [String] = []

    func add(_ problem: String) {
        all.append(problem)
    }
}
