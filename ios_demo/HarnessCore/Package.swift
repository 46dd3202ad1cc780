// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "HarnessCore",
    platforms: [.iOS(.v17), .macOS(.v13)],
    products: [.library(name: "HarnessCore", targets: ["HarnessCore"])],
    targets: [
        .target(name: "HarnessCore"),
        // A model that any language computes exactly, for tests of harnesses.
        .target(name: "HarnessToys", dependencies: ["HarnessCore"]),
        // The app without a screen and without a phone, for machines that are neither.
        .executableTarget(name: "StandInApp", dependencies: ["HarnessCore", "HarnessToys"]),
        .testTarget(
            name: "HarnessCoreTests", dependencies: ["HarnessCore", "HarnessToys"],
            resources: [.copy("Golden")]),
    ]
)
