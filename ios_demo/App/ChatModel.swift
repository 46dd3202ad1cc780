import Foundation
import Observation

/// What the chat screen shows and does; the model works on a queue of its own.
@Observable
final class ChatModel {
    struct Turn: Identifiable {
        let id = UUID()
        let isUser: Bool
        var text: String
    }

    private(set) var turns: [Turn] = []
    private(set) var status = "Loading…"
    private(set) var isBusy = true
    private var conversation: Conversation?
    private let queue = DispatchQueue(label: "mobilepack.chat", qos: .userInteractive)

    var canSend: Bool { !isBusy && conversation != nil }

    func load() {
        guard conversation == nil else { return }
        work {
            let loaded = try Conversation(PackageFolder.open())
            return { $0.conversation = loaded }
        }
    }

    func send(_ message: String) {
        guard canSend, let conversation else { return }
        turns.append(Turn(isUser: true, text: message))
        turns.append(Turn(isUser: false, text: ""))
        work {
            let speed = try conversation.answer(message) { piece in
                DispatchQueue.main.async { self.append(piece) }
            }
            let first = String(format: "%.2f", speed.firstAfterSeconds)
            let rate = String(format: "%.1f", speed.piecesPerSecond)
            return { $0.status = "first text after \(first) s, then \(rate) pieces/s" }
        }
    }

    func stop() { conversation?.stop() }

    func startAgain() {
        guard canSend, let conversation else { return }
        turns = []
        work {
            conversation.forget()
            return { _ in }
        }
    }

    private func append(_ piece: String) {
        guard !turns.isEmpty else { return }
        turns[turns.count - 1].text += piece
    }

    /// Does one thing after the other off the main thread; failures are shown.
    private func work(_ task: @escaping () throws -> (ChatModel) -> Void) {
        isBusy = true
        queue.async {
            let outcome = Result { try task() }
            DispatchQueue.main.async {
                self.isBusy = false
                switch outcome {
                case .success(let change):
                    self.status = "Ready"
                    change(self)
                case .failure(let error):
                    self.status = "\(error)"
                }
            }
        }
    }
}
