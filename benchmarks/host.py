"""Describe the machine, and wait for others on it to finish."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import busy_cpu_s

# Instruction sets that matmul kernels of the measured runtimes are chosen by.
_FEATURES = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
_PROBE_S = 1.0


@dataclass(frozen=True, slots=True)
class Host:
    """Hold what a reader must know to compare numbers with those of another machine."""

    cpu_model: str
    cpu_count: int
    cpu_features: tuple[str, ...]
    memory_bytes: int
    kernel: str
    python: str
    virtual_machine: bool


def describe_host() -> Host:
    """Read the processor, memory and kernel of this machine (Linux)."""
    fields = _cpu_fields()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Host(
        cpu_model=fields.get("model name", platform.machine()),
        cpu_count=os.cpu_count() or 1,
        cpu_features=tuple(name for name in _FEATURES if name in flags),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        python=platform.python_version(),
        virtual_machine="hypervisor" in flags,
    )


def load_average() -> tuple[float, float, float]:
    """Return the load averages over 1, 5 and 15 minutes."""
    return os.getloadavg()


def wait_until_quiet(limit_s: float, busy_share: float = 0.1) -> float:
    """Wait until all processors together are nearly idle for a second.

    Args:
        limit_s: Give up waiting after this long; 0 does not wait at all.
        busy_share: Share of the machine that may be in use.

    Returns:
        Seconds waited.
    """
    started = time.monotonic()
    while time.monotonic() - started < limit_s:
        before = busy_cpu_s()
        time.sleep(_PROBE_S)
        if (busy_cpu_s() - before) / (_PROBE_S * (os.cpu_count() or 1)) <= busy_share:
            break
    return time.monotonic() - started


def _cpu_fields() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
