import Darwin
import UIKit
import os

#if targetEnvironment(simulator)
    let isSimulator = true
#else
    let isSimulator = false
#endif

/// What the system counts against the app's limit (`phys_footprint`), now and at most so far.
func memory() -> (footprint: UInt64, peak: UInt64) {
    var info = task_vm_info_data_t()
    let words = MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size
    var count = mach_msg_type_number_t(words)
    let status = withUnsafeMutablePointer(to: &info) { pointer in
        pointer.withMemoryRebound(to: integer_t.self, capacity: words) {
            task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
        }
    }
    guard status == KERN_SUCCESS else { return (0, 0) }
    return (info.phys_footprint, UInt64(max(0, info.ledger_phys_footprint_peak)))
}

/// What the system would still grant before it kills the app; 0 in a simulator.
func availableMemory() -> UInt64 { UInt64(os_proc_available_memory()) }

/// `iPhone16,1`; a simulator names the phone that it plays.
func modelIdentifier() -> String {
    if let played = ProcessInfo.processInfo.environment["SIMULATOR_MODEL_IDENTIFIER"] {
        return "\(played) (simulator)"
    }
    return text(of: "hw.machine")
}

/// Fast cores, of which ExecuTorch's pool takes one thread each; its Swift API has no way to ask.
func fastProcessors() -> Int {
    var count: Int32 = 0
    var size = MemoryLayout<Int32>.size
    let status = sysctlbyname("hw.perflevel0.physicalcpu", &count, &size, nil, 0)
    return status == 0 ? max(1, Int(count)) : 1
}

private func text(of name: String) -> String {
    var size = 0
    guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return "unknown" }
    var bytes = [CChar](repeating: 0, count: size)
    sysctlbyname(name, &bytes, &size, nil, 0)
    return String(cString: bytes)
}

@MainActor
func keepScreenOn() {
    UIApplication.shared.isIdleTimerDisabled = true
}
