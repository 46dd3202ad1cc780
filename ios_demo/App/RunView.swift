import SwiftUI

/// What a run says, while it runs.
struct RunView: View {
    let model: RunModel

    var body: some View {
        ScrollView {
            Text(model.lines.joined(separator: "\n"))
                .font(.caption.monospaced())
                .frame(maxWidth: .infinity, alignment: .leading)
                .padding()
        }
        .onAppear {
            keepScreenOn()  // a screen that goes dark takes the app off the fast cores
            model.start()
        }
    }
}
