"""200 run plans over 4 phones that break at random end with exactly the records of quiet ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import Record, fake_phones, plans, soak
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.native.local import NativeHarness

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned", "runs_here")]
PLANS, PHONES, SEED = 200, 4, 7


def test_every_record_is_exact_and_nothing_ran_without_need(server: Adb, quantised: Path) -> None:
    record = Record(f"{PHONES} fake phones", PLANS, SEED)
    with fake_phones(PHONES, server) as breakable:
        soak(quantised, plans(PLANS, SEED), breakable, [NativeHarness()] * PHONES, record)
    assert record.problems == []
    assert record.exact == PLANS
    broken = sum(record.outcomes.values())
    assert record.attempts == PLANS + broken
    # A third of the attempts is disturbed; some faults wait for a moment that does not come.
    assert broken > PLANS / 10
    assert {"device-gone", "device-full", "runtime-died", "run-timeout"} <= set(record.outcomes)
    assert record.resumed > 0
