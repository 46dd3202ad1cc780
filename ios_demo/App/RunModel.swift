import Foundation
import HarnessCore
import Observation

/// One run, carried out in a thread of its own; the app ends when it has ended.
@Observable
final class RunModel {
    private(set) var lines: [String] = []
    private let id: String
    private var begun = false

    private init(id: String) {
        self.id = id
    }

    /// The run that launch arguments ask for, nil if they ask for none.
    static func asked(by arguments: [String]) -> RunModel? {
        guard let at = arguments.firstIndex(of: "--run"), at + 1 < arguments.count else {
            return nil
        }
        return RunModel(id: arguments[at + 1])
    }

    func start() {
        guard !begun else { return }
        begun = true
        let folder = RunFolder(documents("mobilepack"), id: id) { line in
            FileHandle.standardOutput.write(Data("\(line)\n".utf8))
            DispatchQueue.main.async { self.lines.append(line) }
        }
        let thread = Thread {
            // The host waits for the file; the end of the app only closes its console.
            exit(folder.run(on: Phone(folder.root)) ? 0 : 1)
        }
        thread.qualityOfService = .userInteractive  // or it may be kept off the fast cores
        thread.stackSize = 8 << 20
        thread.start()
    }
}

/// A folder of the app's Documents, which the Files app and the host see.
func documents(_ name: String) -> URL {
    URL.documentsDirectory.appending(path: name)
}
