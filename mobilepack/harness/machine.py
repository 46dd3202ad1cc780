"""What this machine is and how it is doing: processor, governor, load, resident memory."""

from __future__ import annotations

import os
import platform
from pathlib import Path

UNKNOWN = "unknown"


def cpu_name() -> str:
    """Return the processor's marketing name, or its architecture where nobody tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for key in ("model name", "Hardware", "CPU part"):
        for line in lines:
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or UNKNOWN


def physical_cores() -> int:
    """Return the physical cores that this process may use, at least 1."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(psutil.cpu_count(logical=False) or 1, allowed or 1))


def governor() -> str:
    """Return the frequency governor of the first core, `unknown` where it is not exposed."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        return path.read_text().strip()
    except OSError:
        return UNKNOWN


def load_average() -> str:
    """Return the 1, 5 and 15 minute load averages."""
    try:
        return " ".join(f"{value:.2f}" for value in os.getloadavg())
    except OSError:
        return UNKNOWN


def memory_bytes() -> tuple[int, int]:
    """Return the memory of the machine: total, available."""
    import psutil

    found = psutil.virtual_memory()
    return int(found.total), int(found.available)


def resident_bytes() -> int:
    """Return this process' resident memory now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Return this process' high-water resident memory since its start or the last reset."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def reset_peak() -> bool:
    """Set the high-water mark back to now; False where the kernel does not offer it.

    Writing 5 to clear_refs does it (proc_pid_clear_refs(5), Linux 4.0).
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
