"""What the machine says of itself is plausible and never fails."""

from __future__ import annotations

import os
import sys

import pytest

from mobilepack.harness import machine


def test_facts_are_there() -> None:
    assert machine.cpu_name()
    assert machine.governor()
    assert 1 <= machine.physical_cores() <= (os.cpu_count() or 1)
    total, available = machine.memory_bytes()
    assert 0 < available <= total
    assert len(machine.load_average().split()) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the high-water mark")
def test_the_high_water_mark_is_of_what_came_after_the_reset() -> None:
    held = bytearray(200 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    assert machine.peak_resident_bytes() >= machine.resident_bytes() * 0.9
    high = machine.peak_resident_bytes()
    del held
    if not machine.reset_peak():
        pytest.skip("this kernel does not let a process reset its high-water mark")
    assert machine.peak_resident_bytes() < high - (100 << 20)
