// The app's harness without its screen: `--run ID` carries out a plan of `$HOME/Documents/mobilepack`
// with the program that `MOBILEPACK_STEP_SERVER` serves; `--toy PLAN RESULT [nan|keeps]` one with a
// model that is a formula.
#if os(Linux) || os(macOS)
    import Foundation
    import HarnessCore
    import HarnessToys

    func say(_ line: String) {
        FileHandle.standardOutput.write(Data("\(line)\n".utf8))
    }

    func toy(_ arguments: [String]) -> Bool {
        let platform = ToyPlatform(
            ToyEngine(broken: arguments.contains("nan")), keeps: arguments.contains("keeps"))
        do {
            let plan = try Data(contentsOf: URL(fileURLWithPath: arguments[0]))
            let result = try runPlan(plan, on: platform) { event in
                if case .item(let name, let done, let total) = event {
                    say("\(done)/\(total) \(name)")
                }
            }
            try Data(result.json().utf8).write(to: URL(fileURLWithPath: arguments[1]))
            return true
        } catch let error as PlanRefused {
            error.problems.forEach(say)
        } catch {
            say("\(error)")
        }
        return false
    }

    func run(_ id: String) -> Bool {
        let home = ProcessInfo.processInfo.environment["HOME"] ?? "/"
        let root = URL(fileURLWithPath: home).appendingPathComponent("Documents/mobilepack")
        return RunFolder(root, id: id, say: say).run(on: ServedPlatform(root, id: id))
    }

    let arguments = Array(CommandLine.arguments.dropFirst())
    switch (arguments.first, arguments.count) {
    case ("--run", 2): exit(run(arguments[1]) ? 0 : 1)
    case ("--toy", 3...): exit(toy(Array(arguments.dropFirst())) ? 0 : 1)
    default:
        say("usage: StandInApp --run ID | --toy PLAN RESULT [nan|keeps]")
        exit(2)
    }
#endif
