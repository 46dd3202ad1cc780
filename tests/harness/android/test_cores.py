"""Cores are chosen by what the kernel says of them, and the phone is asked what it granted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.commands.devices import AdbServer, harnesses
from mobilepack.contract.run_plan import RunPlan, Time
from mobilepack.errors import MissingError, RunFailedError, UsageError
from mobilepack.harness.android.adb import Adb, is_address
from mobilepack.harness.android.conditions import read_conditions
from mobilepack.harness.android.cores import big_cores, listed, parse_cores, pin
from mobilepack.harness.android.harness import AdbHarness
from mobilepack.testing.phone import FakePhone
from tests.harness.android.conftest import NewPhone

# Synthetic, in the form of cores.py's own question: little, big and prime cores.
FREQUENCIES = [1804800] * 4 + [2419200] * 3 + [2841600]
CAPACITIES = [250] * 4 + [760] * 3 + [1024]


def said(capacities: list[Any], frequencies: list[Any]) -> str:
    pairs = enumerate(zip(capacities, frequencies, strict=True))
    return "".join(f"cpu{n} capacity={one} khz={khz}\n" for n, (one, khz) in pairs)


@pytest.mark.parametrize(
    ("text", "cores", "measure"),
    [
        (said([""] * 8, FREQUENCIES), "4-7", "cpuinfo_max_freq"),
        (said(CAPACITIES, FREQUENCIES), "4-7", "cpu_capacity"),
        # By clock alone 2.0 of 2.6 GHz would be strong; the kernel knows that the core is not.
        (said(CAPACITIES, [2000000] * 4 + [2600000] * 4), "4-7", "cpu_capacity"),
        (said([*CAPACITIES[:7], ""], FREQUENCIES), "4-7", "cpuinfo_max_freq"),
        (said([1024] * 4, [""] * 4), "0-3", "cpu_capacity"),
        (said([""] * 4, [""] * 4), "", ""),
        (said([0] * 4, [0] * 4), "", ""),
        ("", "", ""),
        ("sh: can't open", "", ""),
    ],
)
def test_big_cores_are_measured(text: str, cores: str, measure: str) -> None:
    found = big_cores(text)
    assert (listed(found[0]), found[1]) == (cores, measure)


@given(st.sets(st.integers(0, 999), min_size=1))
def test_lists_of_cores_are_linux_s(cores: set[int]) -> None:
    assert parse_cores(listed(cores)) == cores


@pytest.mark.parametrize("text", ["", "-1", "4-", "7-4", "4;5", "$(id)", "1024-99999", "large"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as failure:
        parse_cores(text)
    assert failure.value.code == "bad-cores"


@pytest.fixture
def phone(new_phone: NewPhone) -> FakePhone:
    return new_phone()


def mine() -> int:
    return min(os.sched_getaffinity(0))


def test_the_phone_grants_cores_or_the_run_is_refused(server: Adb, phone: FakePhone) -> None:
    adb = server.on(phone.serial)
    assert pin(adb, "all").words == ()
    found = pin(adb, str(mine()))
    assert found.words == ("taskset", f"{1 << mine():x}")
    assert found.said == {"cores": str(mine()), "cores_by": "the user"}
    for asked in ("900", "big"):  # it has no such core, and tells nothing of those that it has
        with pytest.raises(RunFailedError) as failure:
            pin(adb, asked)
        assert failure.value.code == "phone-cores"


def test_big_cores_of_a_phone(server: Adb, phone: FakePhone) -> None:
    for core in os.sched_getaffinity(0):
        phone.disk.core(core, cpuinfo_max_freq=2841600 if core == mine() else 1804800)
    assert pin(server.on(phone.serial), "big").said == {
        "cores": str(mine()),
        "cores_by": "cpuinfo_max_freq",
    }


def test_conditions_of_a_phone_that_tells_nothing_are_unknown(
    server: Adb, phone: FakePhone
) -> None:
    assert set(read_conditions(server.on(phone.serial), "_before").values()) == {"unknown"}
    phone.disk.core(0, scaling_cur_freq=300000, scaling_governor="walt")
    phone.disk.core(1, scaling_cur_freq="<unknown>", scaling_governor="walt")
    found = read_conditions(server.on(phone.serial), "_after")
    assert found["frequencies_khz_after"] == "cpu0=300000"
    assert found["governors_after"] == "walt"


def test_an_address_is_connected_when_it_is_named(server: Adb) -> None:
    with FakePhone() as phone:
        assert phone.serial not in {one.serial for one in server.devices()}
        (found,) = harnesses((phone.serial,), AdbServer(port=server.port), purpose="test")
        try:
            assert found.device.id == phone.serial
        finally:
            server.disconnect(phone.serial)
    with pytest.raises(RunFailedError) as failure:
        harnesses((phone.serial,), AdbServer(port=server.port), purpose="test")
    assert failure.value.code == "device-unreachable"
    assert phone.serial in str(failure.value)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("192.168.1.5:5555", True),
        ("lab-7.local:5037", True),
        ("[fe80::1]:5555", True),
        ("14141JEC204776", False),
        ("app:14141JEC204776", False),
        ("soc=SM8650", False),
        ("host:0", False),
        ("-s:5555", False),
        ("a b:5555", False),
    ],
)
def test_addresses(name: str, is_one: bool) -> None:
    assert is_address(name) == is_one


def test_cores_are_a_phone_s(server: Adb, phone: FakePhone) -> None:
    with pytest.raises(UsageError, match="cannot keep host"):
        harnesses(("host",), purpose="test", cores="big")
    with pytest.raises(UsageError, match="cannot read the cores"):
        harnesses((phone.serial,), AdbServer(port=server.port), purpose="test", cores="fast")
    with pytest.raises(MissingError):
        harnesses(("14141JEC204776",), AdbServer(port=server.port), purpose="test", cores="big")


@pytest.mark.slow
@pytest.mark.usefixtures("provisioned", "runs_here")
def test_a_run_keeps_to_its_core(
    server: Adb, phone: FakePhone, quantised: Path, tmp_path: Path
) -> None:
    item = Time(name="t", token_ids=(5,), n_prompt=4, n_gen=2, warmups=0, repetitions=1)
    plan = RunPlan(max_seq_len=64, prefill_chunk=32, sample_ids=(0,), top_k=1, items=(item,))
    harness = AdbHarness(server.on(phone.serial))
    harness.keep_on(str(mine()))
    environment = harness.run(quantised, plan, log=tmp_path / "log").environment
    assert environment.conditions["cores"] == str(mine())
    # The runner counts the cores that it may use: one, on a machine that has more.
    assert environment.threads == 1
    assert "frequencies_khz_during" in environment.conditions
