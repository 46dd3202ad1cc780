import SwiftUI

/// A chat with the package's model; launched with `--run ID` it carries out that run's plan instead.
@main
struct MobilepackDemoApp: App {
    private let run = RunModel.asked(by: ProcessInfo.processInfo.arguments)

    var body: some Scene {
        WindowGroup {
            if let run {
                RunView(model: run)
            } else {
                ChatView()
            }
        }
    }
}
