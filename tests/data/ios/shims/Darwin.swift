// What ios_demo uses of the kernel's interface, by hand: mach/task_info.h, sys/sysctl.h.
@_exported import Foundation

public typealias natural_t = UInt32
public typealias integer_t = Int32
public typealias mach_msg_type_number_t = UInt32
public typealias task_flavor_t = UInt32
public let TASK_VM_INFO: Int32 = 22
public let KERN_SUCCESS: Int32 = 0
public let mach_task_self_: UInt32 = 0
public struct task_vm_info_data_t {
    public init() {}
    public var phys_footprint: UInt64 = 0
    public var ledger_phys_footprint_peak: Int64 = 0
}
public func task_info(
    _ task: UInt32, _ flavor: task_flavor_t, _ info: UnsafeMutablePointer<integer_t>,
    _ count: UnsafeMutablePointer<mach_msg_type_number_t>
) -> Int32 { fatalError() }
@discardableResult public func sysctlbyname(
    _ name: String, _ old: UnsafeMutableRawPointer?, _ size: UnsafeMutablePointer<Int>?,
    _ new: UnsafeMutableRawPointer?, _ length: Int
) -> Int32 { fatalError() }

// Foundation has these on Apple's systems only.
extension ProcessInfo {
    public enum ThermalState { case nominal, fair, serious, critical }
    public var thermalState: ThermalState { fatalError() }
    public var isLowPowerModeEnabled: Bool { fatalError() }
}
extension URL {
    public static var documentsDirectory: URL { fatalError() }
}
