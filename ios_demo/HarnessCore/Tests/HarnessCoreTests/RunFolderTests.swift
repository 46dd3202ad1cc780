import Foundation
import HarnessToys
import XCTest

@testable import HarnessCore

final class RunFolderTests: XCTestCase {
    private var root = FileManager.default.temporaryDirectory

    override func setUpWithError() throws {
        root = root.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: root)
    }

    private func write(_ text: String, _ name: String) throws {
        try Data(text.utf8).write(to: root.appendingPathComponent(name))
    }

    private func names() throws -> Set<String> {
        Set(try FileManager.default.contentsOfDirectory(atPath: root.path))
    }

    func testARunLeavesItsOwnFilesOnly() throws {
        let item = #"{"kind": "generate", "name": "g", "token_ids": [1], "max_new_tokens": 2}"#
        let plan = #"{"max_seq_len": 4, "prefill_chunk": 4, "items": [\#(item)]}"#
        try write(plan, "plan-new.json")
        for name in ["plan-old.json", "result-old.json", "events-old.jsonl", "programs"] {
            try write("{}", name)
        }
        var said: [String] = []
        XCTAssertTrue(RunFolder(root, id: "new", say: { said.append($0) }).run(on: ToyPlatform()))
        XCTAssertEqual(
            try names(), ["plan-new.json", "result-new.json", "events-new.jsonl", "programs"])
        let events = try String(
            contentsOf: root.appendingPathComponent("events-new.jsonl"), encoding: .utf8)
        XCTAssertEqual(events, said.map { $0.dropFirst("MOBILEPACK ".count) + "\n" }.joined())
        XCTAssertTrue(said.last?.contains(#""event":"written","run_id":"new""#) ?? false)
    }

    func testAPlanThatIsRefusedIsAnEventAndNoResult() throws {
        try write("{}", "plan-bad.json")
        var said: [String] = []
        XCTAssertFalse(RunFolder(root, id: "bad", say: { said.append($0) }).run(on: ToyPlatform()))
        XCTAssertEqual(try names(), ["plan-bad.json", "events-bad.jsonl"])
        XCTAssertEqual(said.count, 1)
        XCTAssertTrue(said[0].contains("items: is missing"), said[0])
    }

    func testAMissingPlanIsAnEvent() throws {
        var said: [String] = []
        XCTAssertFalse(RunFolder(root, id: "x", say: { said.append($0) }).run(on: ToyPlatform()))
        XCTAssertTrue(said[0].contains(#""event":"failed""#))
    }
}
