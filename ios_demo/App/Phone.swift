import Foundation
import HarnessCore

/// This phone or simulator, with a program in the app's own process.
final class Phone: Platform {
    let clock: Clock = SystemClock()
    private let root: URL

    /// - Parameter root: Folder that plans name their programs from.
    init(_ root: URL) {
        self.root = root
    }

    func footprintBytes() -> UInt64 { memory().footprint }

    func peakBytes() -> UInt64 { memory().peak }

    func availableBytes() -> UInt64 { availableMemory() }

    func conditions() -> [String: String] {
        let process = ProcessInfo.processInfo
        return [
            "thermal_state": name(of: process.thermalState),
            "low_power_mode": "\(process.isLowPowerModeEnabled)",
            "active_processors": "\(process.activeProcessorCount)",
        ]
    }

    func load(_ plan: RunPlan) throws -> Engine {
        isCoreML(plan) ? try loadCoreML(program(plan)) : try loadModule(program(plan), plan)
    }

    func placement(_ plan: RunPlan) -> Placement? {
        isCoreML(plan) ? readPlacement(of: compiledPath(of: program(plan))) : nil
    }

    func keepsLoads(_ plan: RunPlan) -> Bool { isCoreML(plan) }

    func environment(_ plan: RunPlan) -> Environment {
        let info = Bundle.main.infoDictionary ?? [:]
        return Environment(
            kind: isSimulator ? "simulator" : "device",
            representative: !isSimulator,
            name: "\(modelIdentifier()), \(systemName())",
            cpu: modelIdentifier(),
            threads: fastProcessors(),
            runtime: [
                "executorch": info["MobilepackExecuTorch"] as? String ?? "unknown",
                "ios": ProcessInfo.processInfo.operatingSystemVersionString,
            ])
    }

    private func program(_ plan: RunPlan) -> URL { root.appending(path: plan.program) }

    private func isCoreML(_ plan: RunPlan) -> Bool { plan.program.hasSuffix(".mlpackage") }

    private func name(of state: ProcessInfo.ThermalState) -> String {
        switch state {
        case .nominal: return "nominal"
        case .fair: return "fair"
        case .serious: return "serious"
        case .critical: return "critical"
        @unknown default: return "unknown"
        }
    }
}

/// `iOS 18.5`.
func systemName() -> String {
    let version = ProcessInfo.processInfo.operatingSystemVersion
    return "iOS \(version.majorVersion).\(version.minorVersion)"
}
