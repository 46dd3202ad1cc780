import Foundation

/// The folder through which host and app exchange runs: `Documents/mobilepack`.
///
/// The host writes `plan-ID.json`; the app answers with `events-ID.jsonl`, line by line, and with
/// `result-ID.json`, which appears whole or not at all. Every event is also a line on the standard
/// output, `MOBILEPACK {…}`.
public final class RunFolder {
    public let root: URL
    private let id: String
    private let say: (String) -> Void
    private var count = 0

    /// - Parameters:
    ///   - root: Holds plans, results and programs.
    ///   - id: Of the run.
    ///   - say: Prints one line and flushes it.
    public init(_ root: URL, id: String, say: @escaping (String) -> Void) {
        self.root = root
        self.id = id
        self.say = say
    }

    /// Carries out the run's plan; whether it left a result.
    public func run(on platform: Platform) -> Bool {
        do {
            try forgetOthers()
            let plan = try Data(contentsOf: file("plan", "json"))
            let result = try runPlan(plan, on: platform, tell)
            try Data(result.json().utf8).write(to: file("result", "json"), options: .atomic)
            event("written") { $0.text("run_id", id) }
            return true
        } catch {
            event("failed") { $0.text("why", "\(error)") }
            return false
        }
    }

    /// Removes what earlier runs left; programs stay, for they are big and pushed once.
    private func forgetOthers() throws {
        let files = FileManager.default
        for url in try files.contentsOfDirectory(at: root, includingPropertiesForKeys: nil) {
            let name = url.deletingPathExtension().lastPathComponent
            let isRun = ["plan-", "events-", "result-"].contains { name.hasPrefix($0) }
            if isRun && !name.hasSuffix("-\(id)") { try files.removeItem(at: url) }
        }
    }

    private func file(_ kind: String, _ end: String) -> URL {
        root.appendingPathComponent("\(kind)-\(id).\(end)")
    }

    private func tell(_ what: Event) {
        switch what {
        case .loaded(let ns, let threads):
            event("loaded") {
                $0.int("load_ns", ns)
                $0.int("threads", threads)
            }
        case .item(let name, let done, let total):
            event("item") {
                $0.text("item", name)
                $0.int("done", done)
                $0.int("total", total)
            }
        case .memory(let footprint, let available):
            event("memory") {
                $0.int("footprint_bytes", footprint)
                $0.int("available_bytes", available)
            }
        }
    }

    private func event(_ name: String, _ fields: (inout JsonWriter) -> Void) {
        var writer = JsonWriter()
        writer.object { out in
            out.int("n", count)
            out.text("event", name)
            fields(&out)
        }
        count += 1
        append(writer.text + "\n")
        say("MOBILEPACK \(writer.text)")
    }

    /// Adds a line to the file of events; a run goes on without it, for stdout has it too.
    private func append(_ line: String) {
        let url = file("events", "jsonl")
        if let handle = try? FileHandle(forWritingTo: url) {
            defer { try? handle.close() }
            _ = try? handle.seekToEnd()
            try? handle.write(contentsOf: Data(line.utf8))
        } else {
            try? Data(line.utf8).write(to: url)
        }
    }
}

extension JsonWriter {
    fileprivate mutating func text(_ name: String, _ value: String) {
        key(name)
        string(value)
    }

    fileprivate mutating func int<Number: BinaryInteger>(_ name: String, _ value: Number) {
        key(name)
        int(value)
    }
}
