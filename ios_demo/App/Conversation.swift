import ExecuTorchLLM
import Foundation

/// How an answer came: pieces of text, for a piece can be several tokens.
struct Speed {
    let pieces: Int
    let piecesPerSecond: Double
    let firstAfterSeconds: Double
}

/// A chat with the package's model, which remembers what was said until `forget`; not thread-safe.
final class Conversation {
    private let folder: PackageFolder
    private let runner: TextRunner

    /// Loads the program.
    init(_ folder: PackageFolder) throws {
        self.folder = folder
        runner = TextRunner(
            modelPath: try folder.program().path, tokenizerPath: try folder.tokenizer().path)
        try runner.load()
    }

    /// Answers a message; returns when the answer is complete or was stopped.
    ///
    /// - Parameter onText: Hears each new piece, on the caller's thread.
    func answer(_ message: String, onText: @escaping (String) -> Void) throws -> Speed {
        let config = Config {
            $0.isEchoEnabled = false  // it is on by default
            $0.temperature = 0  // the likeliest token, always; 0.8 by default
            $0.maximumNewTokens = 256
        }
        let clock = ContinuousClock()
        let start = clock.now
        var (first, last, pieces) = (start, start, 0)
        try runner.generate(folder.prompt(message), config) { text in
            last = clock.now
            if pieces == 0 { first = last }
            pieces += 1
            onText(text)
        }
        let seconds = (last - first) / .seconds(1)
        let speed = pieces > 1 && seconds > 0 ? Double(pieces - 1) / seconds : 0
        return Speed(
            pieces: pieces, piecesPerSecond: speed, firstAfterSeconds: (first - start) / .seconds(1)
        )
    }

    /// Ends the answer that is being given; from any thread.
    func stop() { runner.stop() }

    func forget() { runner.reset() }
}
