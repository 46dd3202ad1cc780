"""What a program adds to the memory of the process that runs it."""

from __future__ import annotations

from mobilepack.contract.run_result import Memory


def loaded_bytes(memory: Memory) -> int:
    """Return what loading added to resident memory, at least 0."""
    return max(0, memory.after_load_bytes - memory.before_load_bytes)


def peak_over_base_bytes(memory: Memory) -> int:
    """Return how far resident memory rose above the runtime's own, at least 0."""
    return max(0, memory.peak_bytes - memory.before_load_bytes)
