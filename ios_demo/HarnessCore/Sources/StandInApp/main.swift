// The app's harness without its screen: `--run ID` carries out a plan of `$HOME/Documents/mobilepack`
// with the program that `MOBILEPACK_STEP_SERVER` serves; `--toy PLAN RESULT [nan|keeps]` one with a
// model that is a formula; `--inputs MANIFEST POSITION IDS` what a static program would be given.
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

    /// Prints tokens, positions and each mask, one per line, numbers separated by blanks.
    func inputs(_ arguments: [String]) throws -> Bool {
        let manifest = try Data(contentsOf: URL(fileURLWithPath: arguments[0]))
        let ids = arguments.dropFirst(2).compactMap { Int($0) }
        guard let form = try StaticForm.read(manifest), let position = Int(arguments[1]),
            let given = form.inputs(ids[...], at: position)
        else { return false }
        say(given.method)
        let lists = [given.tokens.map { "\($0)" }, given.positions.map { "\($0)" }]
        let masks = given.masks.map { $0.map { "\($0)" } }
        for list in lists + masks { say(list.joined(separator: " ")) }
        return true
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
    case ("--inputs", 4...): exit(try inputs(Array(arguments.dropFirst())) ? 0 : 1)
    default:
        say("usage: StandInApp --run ID | --toy PLAN RESULT [nan|keeps] | --inputs MANIFEST AT IDS")
        exit(2)
    }
#endif
