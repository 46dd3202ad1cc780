#if os(Linux) || os(macOS)
    import Foundation
    import HarnessCore

    /// Why the step server could not be used.
    struct ServerError: Error, CustomStringConvertible {
        let description: String
    }

    /// A program that a child process runs: `PROGRAM PLAN` for arguments, int32 and float32 in the
    /// machine's byte order on its pipes. Asked [count, position, ids …] it answers [size, logits …],
    /// or [-1, length, why].
    final class ServedEngine: Engine {
        private let server = Process()
        private let questions = Pipe()
        private let answers = Pipe()

        init(_ program: URL, plan: URL) throws {
            guard let path = ProcessInfo.processInfo.environment["MOBILEPACK_STEP_SERVER"] else {
                throw ServerError(description: "MOBILEPACK_STEP_SERVER is not set")
            }
            server.executableURL = URL(fileURLWithPath: path)
            server.arguments = [program.path, plan.path]
            server.standardInput = questions
            server.standardOutput = answers
            try server.run()
            _ = try answer()
        }

        deinit {
            try? questions.fileHandleForWriting.close()
            server.waitUntilExit()
        }

        func step(_ tokens: ArraySlice<Int>, at position: Int) throws -> [Float] {
            let words = [tokens.count, position] + tokens
            let bytes = words.map { Int32($0) }.withUnsafeBytes { Data($0) }
            try questions.fileHandleForWriting.write(contentsOf: bytes)
            return try answer()
        }

        private func answer() throws -> [Float] {
            let count = try number()
            guard count >= 0 else {
                let why = try read(Int(try number()))
                throw ServerError(description: String(decoding: why, as: UTF8.self))
            }
            let bytes = try read(4 * Int(count))
            return bytes.withUnsafeBytes { raw in
                (0..<Int(count)).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
            }
        }

        private func number() throws -> Int32 {
            try read(4).withUnsafeBytes { $0.loadUnaligned(as: Int32.self) }
        }

        private func read(_ count: Int) throws -> Data {
            var bytes = Data()
            while bytes.count < count {
                let rest = count - bytes.count
                let part = try answers.fileHandleForReading.read(upToCount: rest) ?? Data()
                guard !part.isEmpty else {
                    throw ServerError(description: "the process that runs the program ended")
                }
                bytes += part
            }
            return bytes
        }
    }

    /// This machine, which says that it is a simulator: it stands in for one.
    final class ServedPlatform: Platform {
        let clock: Clock = SystemClock()
        private let root: URL
        private let id: String

        init(_ root: URL, id: String) {
            self.root = root
            self.id = id
        }

        func footprintBytes() -> UInt64 { status("VmRSS:") }

        func peakBytes() -> UInt64 { status("VmHWM:") }

        func availableBytes() -> UInt64 { 0 }

        func conditions() -> [String: String] { ["thermal_state": "unknown"] }

        func load(_ plan: RunPlan) throws -> Engine {
            let program = root.appendingPathComponent(plan.program)
            let file = root.appendingPathComponent("plan-\(id).json")
            return try ServedEngine(program, plan: file)
        }

        func placement(_ plan: RunPlan) -> Placement? { nil }

        func keepsLoads(_ plan: RunPlan) -> Bool { false }

        func environment(_ plan: RunPlan) -> Environment {
            let system = ProcessInfo.processInfo
            return Environment(
                kind: "simulator", representative: false, name: "stand-in for a simulator",
                cpu: "this machine's", threads: max(1, plan.threads),
                runtime: ["system": system.operatingSystemVersionString])
        }

        /// A field of /proc/self/status, which is in kB; 1 where there is none.
        private func status(_ field: String) -> UInt64 {
            let text = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
            let line = text.split(separator: "\n").first { $0.hasPrefix(field) } ?? ""
            return (UInt64(line.filter(\.isNumber)) ?? 0) * 1024 + 1
        }
    }
#endif
