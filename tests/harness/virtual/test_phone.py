"""The whole adb path: the real adb, the real adbd, the real ARM64 kernels; and its faults."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mobilepack.cli.app import root
from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.devices import devices, harnesses
from mobilepack.commands.verify import verify
from mobilepack.contract.reference import Reference
from mobilepack.contract.run_plan import RunPlan, Teacher, Time
from mobilepack.errors import MissingError, RunFailedError, UsageError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.harness import AdbHarness
from mobilepack.harness.android.native_run import runner_command
from mobilepack.harness.android.store import ROOT, Store
from mobilepack.harness.base import Harness, Limits, Progress
from mobilepack.harness.native.build import built_runner
from mobilepack.harness.virtual import phones
from mobilepack.harness.virtual.counting import counting
from mobilepack.harness.virtual.phones import Phone
from mobilepack.metrics.tolerance import measured_floor
from mobilepack.testing import HARNESS_CHECKS
from tests.harness.virtual.conftest import NAME

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned")]
SOON = Limits(run_s=60)


def short_plan(tokens: int = 4) -> RunPlan:
    item = Teacher(name="t", token_ids=tuple(range(1, tokens + 1)), calls=(1,) * tokens)
    return RunPlan(max_seq_len=64, prefill_chunk=32, sample_ids=(0, 5), items=(item,))


def endless_plan() -> RunPlan:
    item = Time(name="long", token_ids=(1, 2), n_prompt=32, n_gen=16, repetitions=5000)
    return RunPlan(max_seq_len=64, prefill_chunk=32, items=(item,))


@pytest.mark.parametrize("check", HARNESS_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(
    check: Callable[[Harness, Path, str, Path], None],
    on_phone: Adb,
    quantised: Path,
    tmp_path: Path,
) -> None:
    check(AdbHarness(on_phone), quantised, "model.pte", tmp_path / "log.txt")


@pytest.mark.parametrize("recipe", ["quantised", "fp32"])
def test_arm64_computes_what_this_machine_computes(
    recipe: str, on_phone: Adb, request: pytest.FixtureRequest
) -> None:
    """The ladder's emulated rung: fp32 within 1e-5, 8da4w within the measured floor."""
    package = request.getfixturevalue(recipe)
    result = verify(package, harness=AdbHarness(on_phone))
    assert result.parity.passed
    rung = [row for row in result.parity.rows if row.rung == "program on emulated arm64"]
    beside = rung[-1]
    assert beside.against == "program on host"
    rms = next(metric for metric in beside.metrics if metric.name == "rms_over_std")
    assert rms.limit is not None
    assert 0 < rms.value <= rms.limit
    if recipe == "fp32":
        assert rms.limit == 1e-5


def test_a_second_run_pushes_nothing_and_leaves_nothing(
    on_phone: Adb, quantised: Path, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    harness = AdbHarness(on_phone)
    for _ in range(2):
        seen.clear()
        harness.run(quantised, short_plan(), log=tmp_path / "log", on_progress=seen.append)
    assert [progress.item for progress in seen] == ["t", ""]
    assert on_phone.ask(["ls", f"{ROOT}/runs"]) == ""


def test_the_runner_takes_none_of_the_phone_s_libraries(on_phone: Adb) -> None:
    """Android has another C library: what a runner needs travels with it."""
    folder = Store(on_phone).runner(built_runner("aarch64"))
    loader, *rest = runner_command(folder)
    listed = on_phone.ask([loader, "--list", *rest]).splitlines()
    found = [line.split("=>")[1].split()[0] for line in listed if "=>" in line]
    assert len(found) >= 11  # 5 of ExecuTorch, 6 of glibc and GCC
    assert all(path.startswith(folder) for path in found), found


def test_names_that_a_shell_would_read_arrive_as_they_are(
    on_phone: Adb, quantised: Path, tmp_path: Path
) -> None:
    hostile = tmp_path / "a b'\"$(touch pwned)`id`\n;&"
    shutil.copytree(quantised, hostile)
    program = "mo del';$(reboot).pte"
    (hostile / "model.pte").rename(hostile / program)
    plan = short_plan().model_copy(update={"program": program})
    assert len(AdbHarness(on_phone).run(hostile, plan, log=tmp_path / "log").rows) == 4
    assert on_phone.ask(["ls", f"{ROOT}/objects"]).count("\n") <= 3


def test_instructions_are_the_same_to_a_thousandth(
    on_phone: Adb, lab: Phone, quantised: Path
) -> None:
    options = BenchOptions(prompt_tokens=(16,), gen_tokens=(4,), warmups=1, repetitions=2)
    counts = []
    for _ in range(2):
        found = bench(quantised, options, harness=AdbHarness(on_phone, wrap=counting(lab.cpu)))
        assert not found.bench.representative
        assert found.bench.environment.kind == "emulator"
        counts.append([test.instructions_per_token for test in found.bench.tests])
    first, second = np.array(counts, dtype=np.float64)
    assert (first > 1e6).all()
    np.testing.assert_allclose(first, second, rtol=1e-3)


def test_a_processor_of_another_kind_agrees(
    adb: Adb, on_phone: Adb, quantised: Path, fp32: Path, tmp_path: Path
) -> None:
    """cortex-a53 has neither dot products nor fp16 arithmetic: XNNPACK takes other kernels."""
    floor = measured_floor(Reference.read(quantised / "reference"))
    assert floor is not None
    other = phones.create(f"{NAME}-a53", "cortex-a53")
    try:
        phones.start(other, adb)
        plan = short_plan(8).model_copy(update={"sample_ids": tuple(range(0, 2048, 16))})
        for package, limit in ((fp32, 1e-5), (quantised, 2 * floor.rms_over_std)):
            rows = [
                AdbHarness(adb.on(serial)).run(package, plan, log=tmp_path / "log").rows
                for serial in (on_phone.serial, other.serial)
            ]
            a, b = (np.array([row.sampled for row in one]) for one in rows)
            assert np.sqrt(((a - b) ** 2).mean()) <= limit * a.std()
    finally:
        phones.delete(other, adb)


class TestFaults:
    def test_a_runner_that_hangs_is_stopped_and_killed(
        self, on_phone: Adb, quantised: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(RunFailedError) as failure:
            AdbHarness(on_phone).run(
                quantised, endless_plan(), log=tmp_path / "log", limits=Limits(run_s=4)
            )
        assert failure.value.code == "run-timeout"
        deadline = time.monotonic() + 5  # the shell around it ends after it
        while "mobilepack_runner" in (running := on_phone.ask(["ps", "-A", "-o", "ARGS"])):
            assert time.monotonic() < deadline, running
        assert on_phone.ask(["ls", f"{ROOT}/runs"]) == ""

    def test_a_runner_that_is_killed_is_named(
        self, on_phone: Adb, quantised: Path, tmp_path: Path
    ) -> None:
        def kill(progress: Progress) -> None:
            if progress.item == "long":
                threading.Timer(
                    0.5, on_phone.ask, [["sh", "-c", f"kill -9 $(cat {ROOT}/runs/*/pid)"]]
                ).start()

        with pytest.raises(RunFailedError) as failure:
            AdbHarness(on_phone).run(
                quantised, endless_plan(), log=tmp_path / "log", limits=SOON, on_progress=kill
            )
        assert failure.value.code == "runtime-died"
        assert "SIGKILL" in failure.value.why

    def test_a_phone_that_goes_away_in_a_run_is_the_cause(
        self, adb: Adb, quantised: Path, tmp_path: Path
    ) -> None:
        lost = phones.create(f"{NAME}-lost")
        try:
            phones.start(lost, adb)
            stopping = threading.Timer(0.5, phones.stop, [lost, adb])

            def stop(progress: Progress) -> None:
                if progress.item == "long":
                    stopping.start()

            with pytest.raises(RunFailedError) as failure:
                AdbHarness(adb.on(lost.serial)).run(
                    quantised,
                    endless_plan(),
                    log=tmp_path / "log",
                    limits=SOON,
                    on_progress=stop,
                )
            assert failure.value.code == "device-gone"
            stopping.join()
            phones.start(lost, adb)  # and it comes back
            again = AdbHarness(adb.on(lost.serial))
            assert again.run(quantised, short_plan(), log=tmp_path / "log").rows
        finally:
            phones.delete(lost, adb)

    def test_a_program_that_is_damaged_on_the_way_is_not_run(
        self, on_phone: Adb, quantised: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        push = Adb.push

        def damaged(self: Adb, local: Path, remote: str, *, timeout_s: float) -> None:
            push(self, local, remote, timeout_s=timeout_s)
            self.shell(["sh", "-c", 'printf x >> "$1"', "sh", remote])

        monkeypatch.setattr(Adb, "push", damaged)
        Store(on_phone).clean()
        with pytest.raises(RunFailedError) as failure:
            Store(on_phone).program(quantised / "model.pte")
        assert failure.value.code == "push-damaged"
        assert on_phone.ask(["ls", f"{ROOT}/objects"]) == ""

    def test_a_program_that_the_runtime_refuses_is_a_report(
        self, on_phone: Adb, quantised: Path, tmp_path: Path
    ) -> None:
        package = Path(shutil.copytree(quantised, tmp_path / "broken"))
        (package / "model.pte").write_bytes(b"no program at all" * 999)
        with pytest.raises(RunFailedError) as failure:
            AdbHarness(on_phone).run(package, short_plan(), log=tmp_path / "log")
        assert failure.value.code == "runtime-failed"

    def test_a_phone_that_somebody_uses_is_refused(
        self, on_phone: Adb, quantised: Path, tmp_path: Path
    ) -> None:
        from mobilepack.harness.lease import leased

        with leased(on_phone.serial, "soak"), pytest.raises(RunFailedError, match="in use"):
            AdbHarness(on_phone).run(quantised, short_plan(), log=tmp_path / "log")

    def test_a_supervisor_that_is_killed_takes_the_phone_along(self, adb: Adb) -> None:
        made = phones.create(f"{NAME}-orphan")
        try:
            phones.start(made, adb)
            os.kill(int((made.folder / "running.lock").read_text()), signal.SIGKILL)
            deadline = time.monotonic() + 10
            while made.running and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not made.running
            assert phones.start(made, adb).seconds > 0
        finally:
            phones.delete(made, adb)


class TestPhones:
    @pytest.mark.parametrize("name", ["", "A", "a/b", "..", "-x", "a b", "x" * 40])
    def test_names_that_are_no_folder_are_refused(self, name: str) -> None:
        with pytest.raises(UsageError, match="cannot name"):
            phones.create(name)

    def test_an_unknown_processor_lists_near_ones(self) -> None:
        with pytest.raises(UsageError) as failure:
            phones.create(f"{NAME}-x", "cortex-a75x")
        assert "cortex-a7" in failure.value.why
        with pytest.raises(MissingError):
            phones.phone(f"{NAME}-x")

    def test_a_name_is_taken_once(self, lab: Phone) -> None:
        with pytest.raises(UsageError, match="exists"):
            phones.create(lab.name)

    def test_it_is_listed_with_its_facts(self, lab: Phone) -> None:
        found = next(one for one in devices().devices if one.id == lab.name)
        assert (found.kind, found.state) == ("virtual", "ready")
        assert found.facts is not None
        assert (found.facts.abi, found.facts.soc) == ("arm64-v8a", "qemu-cortex-a76")
        assert found.facts.battery_percent is None  # it has none, and says so

    def test_selectors(self, lab: Phone) -> None:
        chosen = harnesses([lab.name, lab.serial, f"model=virtual {lab.name}"], purpose="test")
        assert [one.device.id for one in chosen] == [lab.serial]
        with pytest.raises(MissingError) as failure:
            harnesses([lab.name + "x"], purpose="test")
        assert lab.name in failure.value.why
        with pytest.raises(MissingError, match="soc=SM1"):
            harnesses(["soc=SM1"], purpose="test")


def test_the_command_line(lab: Phone, quantised: Path) -> None:
    done = CliRunner().invoke(root, ["virtual", "list", "--json"])
    assert lab.name in {one["name"] for one in json.loads(done.stdout)["phones"]}
    arguments = ["verify", str(quantised), "-d", lab.name, "-d", "native", "--json"]
    done = CliRunner().invoke(root, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["devices"]
    assert [one["device"] for one in found] == [lab.serial, "native"]
    assert all(one["result"]["parity"]["passed"] for one in found)
