import Foundation
import HarnessToys
import XCTest

@testable import HarnessCore

final class GoldenTests: XCTestCase {
    private func golden(_ name: String) throws -> Data {
        let url = try XCTUnwrap(
            Bundle.module.url(forResource: name, withExtension: "json", subdirectory: "Golden"))
        return try Data(contentsOf: url)
    }

    /// What all harnesses say: 1 is 1.0, and fields of some alone are left out.
    private func common(_ value: Json) -> Json {
        switch value {
        case .number(let text): return .number("\(Double(text) ?? .nan)")
        case .list(let values): return .list(values.map(common))
        case .object(let fields):
            let some = ["conditions", "prefill_instructions", "decode_instructions"]
            let more = ["cached_load_ns", "placement"]
            return .object(
                fields.filter { !(some + more).contains($0.key) }.mapValues(common))
        default: return value
        }
    }

    func testItBringsBackTheGoldenResult() throws {
        let result = try runPlan(golden("run_plan"), on: ToyPlatform()) { _ in }
        let found = try JsonReader.read(Data(result.json().utf8))
        let expected = try JsonReader.read(golden("run_result"))
        XCTAssertEqual(common(found), common(expected))
    }

    func testEveryProblemIsReportedAtOnce() throws {
        let plan = #"{"top_k": 0, "surprise": 1, "method": 3, "max_seq_len": 8.0, "items": []}"#
        XCTAssertThrowsError(try readPlan(Data(plan.utf8))) { error in
            let keys = (error as? PlanRefused)?.problems.compactMap {
                $0.split(separator: ":").first
            }
            XCTAssertEqual(
                keys, ["method", "max_seq_len", "prefill_chunk", "top_k", "items", "surprise"])
        }
    }

    func testChecksumsAreTheStandards() {
        // FIPS 180-2, appendix B: one block, two blocks, a million times 'a'.
        XCTAssertEqual(
            sha256(Data("abc".utf8)),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        XCTAssertEqual(
            sha256(Data("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".utf8)),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
        XCTAssertEqual(
            sha256(Data()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    }

    func testTextsSurviveBothWays() throws {
        var writer = JsonWriter()
        let odd = "\"\\\u{1}\n é 😀 \u{2028}"
        writer.string(odd)
        XCTAssertEqual(try JsonReader.read(Data(writer.text.utf8)), .text(odd))
        XCTAssertEqual(try JsonReader.read(Data(#""😀é""#.utf8)), .text("😀é"))
    }

    func testARecurrentStateIsFedAgain() throws {
        let seen = Counting()
        let engine = Refeeding(seen, chunk: 4)
        _ = try engine.step([1, 2, 3], at: 0)
        _ = try engine.step([9], at: 2)
        XCTAssertEqual(seen.calls, ["[1, 2, 3]@0", "[1, 2]@0", "[9]@2"])
    }
}

private final class Counting: Engine {
    private(set) var calls: [String] = []

    func step(_ tokens: ArraySlice<Int>, at position: Int) throws -> [Float] {
        calls.append("\(Array(tokens))@\(position)")
        return [0]
    }
}
