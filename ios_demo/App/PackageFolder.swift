import Foundation

/// What mobilepack built: the package that was deployed, else the one of the app's bundle.
struct PackageFolder {
    let root: URL

    static func open() -> PackageFolder {
        let bundled = Bundle.main.bundleURL.appending(path: "package")
        let names = try? String(contentsOf: documents("package.txt"), encoding: .utf8)
        guard let name = names else { return PackageFolder(root: bundled) }
        forgetOthers(than: name)
        return PackageFolder(root: documents("packages").appending(path: name))
    }

    /// Deletes packages that were deployed before: a Mac can push files and delete none.
    private static func forgetOthers(than name: String) {
        let folder = documents("packages")
        let found = try? FileManager.default.contentsOfDirectory(atPath: folder.path)
        for other in found ?? [] where other != name {
            try? FileManager.default.removeItem(at: folder.appending(path: other))
        }
    }

    func program() throws -> URL { try file("model.pte") }

    /// The tokenizer that the LLM runner reads; packages have one of the two.
    func tokenizer() throws -> URL {
        (try? file("tokenizer.json")) ?? root.appending(path: "tokenizer.model")
    }

    /// How a message becomes the text that the model sees: `prompt.txt`, in which `{message}` stands
    /// for it. Without one, the message as it is: the runner applies no chat template.
    func prompt(_ message: String) -> String {
        let template = try? String(contentsOf: root.appending(path: "prompt.txt"), encoding: .utf8)
        return template?.replacingOccurrences(of: "{message}", with: message) ?? message
    }

    private func file(_ name: String) throws -> URL {
        let url = root.appending(path: name)
        guard FileManager.default.fileExists(atPath: url.path) else {
            throw MissingFile(description: "\(name) is missing: mobilepack deploy PACKAGE -d UDID")
        }
        return url
    }
}

/// A file that the package does not have.
struct MissingFile: Error, CustomStringConvertible {
    let description: String
}
