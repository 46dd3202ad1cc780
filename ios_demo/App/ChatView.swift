import SwiftUI

/// Streams answers; stop, and start again.
struct ChatView: View {
    @State private var model = ChatModel()
    @State private var message = ""

    var body: some View {
        NavigationStack {
            VStack(spacing: 0) {
                transcript
                Text(model.status).font(.caption).foregroundStyle(.secondary).padding(4)
                entry
            }
            .navigationTitle("mobilepack")
            .toolbar {
                Button("New chat") { model.startAgain() }.disabled(!model.canSend)
            }
        }
        .onAppear { model.load() }
    }

    private var transcript: some View {
        ScrollView {
            LazyVStack(alignment: .leading, spacing: 12) {
                ForEach(model.turns) { turn in
                    Text(turn.text)
                        .padding(10)
                        .background(turn.isUser ? Color.blue.opacity(0.2) : Color.gray.opacity(0.2))
                        .clipShape(RoundedRectangle(cornerRadius: 12))
                        .frame(maxWidth: .infinity, alignment: turn.isUser ? .trailing : .leading)
                }
            }
            .padding()
        }
    }

    private var entry: some View {
        HStack {
            TextField("Message", text: $message).textFieldStyle(.roundedBorder).onSubmit(send)
            if model.isBusy {
                Button("Stop") { model.stop() }
            } else {
                Button("Send", action: send).disabled(!model.canSend || message.isEmpty)
            }
        }
        .padding()
    }

    private func send() {
        guard model.canSend, !message.isEmpty else { return }
        model.send(message)
        message = ""
    }
}
