"""`verify` without -d: phones that nobody named are part of the ladder, and may be absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.contract.parity import Parity
from mobilepack.errors import ExitCode
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.lease import leased
from mobilepack.testing.phone import Fault
from tests.harness.android.conftest import NewPhone

Run = Callable[..., Any]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned", "runs_here")]


def _everywhere(server: Adb) -> tuple[object, ...]:
    return ("--adb-port", server.port, "--exported", "never", "--questions", 0)


def test_a_run_that_breaks_on_an_attached_phone_is_a_failed_rung(
    run: Run, server: Adb, new_phone: NewPhone, quantised: Path
) -> None:
    phone = new_phone()
    phone.faults.arm(Fault("kill", "run"))
    ran = run("verify", quantised, *_everywhere(server))
    assert ran.code == ExitCode.RUN_FAILED
    assert f"failed  program on emulated arm64 ({phone.serial})" in ran.out
    assert "error[runtime-died]" in ran.err
    (written,) = (quantised / "runs" / phone.serial.replace(":", "_")).glob("*/parity.json")
    parity = Parity.read(written)
    assert (parity.passed, parity.culprit) == (False, "program on emulated arm64")
    broken = [row for row in parity.rows if row.status == "failed"]
    assert [row.rung for row in broken] == ["program on emulated arm64"]
    assert "SIGKILL" in broken[0].reason
    assert "program on emulated arm64" in run("report", quantised).out

    again = run("verify", quantised, *_everywhere(server))
    assert again.code == ExitCode.OK
    assert f"program on emulated arm64 ({phone.serial}, XNNPACK)" in again.out


def test_a_phone_that_the_program_is_not_for_is_not_run(
    run: Run, server: Adb, new_phone: NewPhone, quantised: Path
) -> None:
    phone = new_phone({"ro.product.cpu.abi": "armeabi-v7a"})
    ran = run("verify", quantised, *_everywhere(server))
    assert ran.code == ExitCode.OK
    assert f"not run  {phone.serial}: " in ran.err
    document = run("verify", quantised, *_everywhere(server), "--json").document
    here, there = document["devices"]
    assert here["result"]["parity"]["passed"]
    assert (there["device"], there["required"]) == (phone.serial, False)
    assert there["error"]["code"] == "device-abi"
    named = run("verify", quantised, *_everywhere(server), "-d", phone.serial)
    assert named.code == ExitCode.MISSING


def test_a_phone_that_somebody_holds_is_left_alone(
    run: Run, server: Adb, new_phone: NewPhone, quantised: Path
) -> None:
    phone = new_phone()
    with leased(phone.serial, "bench"):
        assert run("verify", quantised, *_everywhere(server)).code == ExitCode.OK
        named = run("verify", quantised, *_everywhere(server), "-d", phone.serial)
    assert named.code == ExitCode.RUN_FAILED
    assert "error[device-busy]" in named.err
