// What ios_demo uses of os/proc.h, by hand.
public func os_proc_available_memory() -> Int { fatalError() }
