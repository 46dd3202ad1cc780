"""Plans inside the app. What `am` prints is synthetic, in AOSP's format; no phone was here.

The phone is our device side of adb; its `am instrument` starts the real native runner of this
machine in the app's folder, so the contract is held by a real program.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mobilepack.commands.devices import AdbServer, harnesses
from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.errors import MissingError, RunFailedError, UsageError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.app import AppHarness
from mobilepack.harness.android.harness import AdbHarness
from mobilepack.harness.android.instrument import OK, Said
from mobilepack.harness.base import Harness, Limits, Progress
from mobilepack.harness.host import HostHarness
from mobilepack.harness.native.build import RUNNER, built_runner
from mobilepack.testing import HARNESS_CHECKS
from mobilepack.testing.phone import FakePhone
from tests.harness.android.conftest import NewPhone
from tests.harness.static_packages import (
    WITHOUT_WARNINGS,
    Packages,
    check_same_rows,
    static_packages,
    static_plan,
)

__all__ = ["static_packages"]

PLAN = RunPlan(
    max_seq_len=64,
    prefill_chunk=32,
    items=(Teacher(name="t", token_ids=(1, 2, 3, 4), calls=(4,)),),
)
AM = r"""
cd "$ANDROID_DATA/data/mobilepack.demo" || exit 1
manifest=$(echo files/package/run/*.json)
test -f "$manifest" || manifest=
"{runner}" files/package files/run_plan.json files/run_result.json $manifest 2>/dev/null | sed -n '
s/^{{"done":\([0-9]*\),"event":"item","item":"\([^"]*\)","total":\([0-9]*\)}}$/\
INSTRUMENTATION_STATUS: item=\2\
INSTRUMENTATION_STATUS: done=\1\
INSTRUMENTATION_STATUS: total=\3\
INSTRUMENTATION_STATUS_CODE: 0/p'
test -f files/run_result.json || {{ echo "INSTRUMENTATION_CODE: 0"; exit 0; }}
echo "INSTRUMENTATION_RESULT: result=/data/user/0/mobilepack.demo/files/run_result.json"
echo "INSTRUMENTATION_CODE: -1"
"""
CRASHED = """INSTRUMENTATION_STATUS: item=t
INSTRUMENTATION_STATUS: done=0
INSTRUMENTATION_STATUS: total=1
INSTRUMENTATION_STATUS_CODE: 0
INSTRUMENTATION_RESULT: longMsg=java.lang.OutOfMemoryError: Failed to allocate
	at mobilepack.demo.ModuleEngine.step(ModuleEngine.kt:20)
INSTRUMENTATION_RESULT: shortMsg=Process crashed.
INSTRUMENTATION_CODE: 0
"""
UNKNOWN = """INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: {a/b}
INSTRUMENTATION_STATUS: id=ActivityManagerService
INSTRUMENTATION_STATUS_CODE: -1
android.util.AndroidException: INSTRUMENTATION_FAILED: a/b
"""
REFUSED = """INSTRUMENTATION_RESULT: error=items: is empty
INSTRUMENTATION_CODE: 0
"""


def read(text: str) -> tuple[Said, list[Progress]]:
    said = Said()
    found = [said.read(line) for line in text.splitlines()]
    return said, [progress for progress in found if progress]


def test_what_am_prints_is_understood() -> None:
    said, progress = read(CRASHED)
    assert progress == [Progress("t", 0, 1)]
    assert (said.code, said.results["shortMsg"]) == (0, "Process crashed.")
    assert said.results["longMsg"].endswith("ModuleEngine.kt:20)")
    said, progress = read(UNKNOWN)
    assert (said.code, progress) == (None, [])
    assert said.error.startswith("Unable to find instrumentation")
    assert read("INSTRUMENTATION_CODE: -1")[0].code == OK
    assert read("Error: something new")[0].error == "Error: something new"


@pytest.fixture
def phone(new_phone: NewPhone) -> FakePhone:
    made: FakePhone = new_phone()
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("provisioned", "runs_here")
@WITHOUT_WARNINGS[0]
@WITHOUT_WARNINGS[1]
class TestOnAPhone:
    @pytest.mark.parametrize("check", HARNESS_CHECKS, ids=lambda check: check.__name__)
    def test_the_contract(
        self,
        check: Callable[[Harness, Path, str, Path], None],
        server: Adb,
        phone: FakePhone,
        quantised: Path,
        tmp_path: Path,
    ) -> None:
        phone.disk.program("instrument", AM.format(runner=built_runner("x86_64") / RUNNER))
        (app,) = harnesses([f"app:{phone.serial}"], AdbServer(port=server.port), purpose="test")
        assert app.device.id == f"app:{phone.serial}"
        check(app, quantised, "model.pte", tmp_path / "log.txt")

    def test_an_app_is_not_kept_on_cores_and_says_so(
        self, server: Adb, phone: FakePhone, quantised: Path, tmp_path: Path
    ) -> None:
        name, adb_server = f"app:{phone.serial}", AdbServer(port=server.port)
        with pytest.raises(UsageError) as failure:
            harnesses([name], adb_server, purpose="test", cores="big")
        assert failure.value.code == "cores-in-app"
        phone.disk.program("instrument", AM.format(runner=built_runner("x86_64") / RUNNER))
        (app,) = harnesses([name], adb_server, purpose="test")
        found = app.run(quantised, PLAN, log=tmp_path / "log").environment.conditions
        assert found["cores"] == "all"
        assert "not pinned" in found["cores_by"]

    @pytest.mark.parametrize(
        ("text", "code", "why"),
        [
            (CRASHED, "runtime-died", "OutOfMemoryError"),
            (UNKNOWN, "app-without-entry", "Unable to find"),
            (REFUSED, "runtime-failed", "items: is empty"),
            ("", "runtime-died", "exit status 0"),
        ],
    )
    def test_every_bad_end_is_said(
        self,
        text: str,
        code: str,
        why: str,
        server: Adb,
        phone: FakePhone,
        quantised: Path,
        tmp_path: Path,
    ) -> None:
        (phone.disk.root / "said").write_text(text)
        phone.disk.program("instrument", f"cat {phone.disk.root}/said")
        with pytest.raises((RunFailedError, MissingError)) as failure:
            AppHarness(server.on(phone.serial)).run(quantised, PLAN, log=tmp_path / "log")
        assert failure.value.code == code
        assert why in failure.value.why
        assert "force-stop mobilepack.demo" in (phone.disk.system / "am.log").read_text()

    def test_an_app_that_hangs_is_stopped(
        self, server: Adb, phone: FakePhone, quantised: Path, tmp_path: Path
    ) -> None:
        phone.disk.program("instrument", "exec sleep 60")
        with pytest.raises(RunFailedError) as failure:
            AppHarness(server.on(phone.serial)).run(
                quantised, PLAN, log=tmp_path / "log", limits=Limits(run_s=2)
            )
        assert failure.value.code == "run-timeout"
        assert "force-stop mobilepack.demo" in (phone.disk.system / "am.log").read_text()

    def test_a_program_of_the_static_form_goes_with_its_manifest(
        self, server: Adb, phone: FakePhone, static_packages: Packages, tmp_path: Path
    ) -> None:
        """The package's own bytes, run by whatever reads the manifest beside the program."""
        phone.disk.program("instrument", AM.format(runner=built_runner("x86_64") / RUNNER))
        package = Path(shutil.copytree(static_packages("bytes"), tmp_path / "a b'$(c)"))
        app, plan, seen = (
            AppHarness(server.on(phone.serial)),
            static_plan(package),
            list[Progress](),
        )

        def carried_out() -> list[str]:
            seen.clear()
            check_same_rows(
                app.run(package, plan, log=tmp_path / "log", on_progress=seen.append),
                HostHarness().run(package, plan, log=tmp_path / "log"),
            )
            return [one.item.split()[1] for one in seen if one.item.startswith("push")]

        assert carried_out() == ["model.pte", "manifest.json"]
        assert carried_out() == []
        path = package / "manifest.json"
        path.write_text(path.read_text() + "\n")
        assert carried_out() == ["manifest.json"]

    def test_a_program_that_it_cannot_call_is_refused_before_anything_is_pushed(
        self, server: Adb, phone: FakePhone, static_packages: Packages, tmp_path: Path
    ) -> None:
        package = static_packages("integers")
        with pytest.raises(UsageError) as failure:
            AppHarness(server.on(phone.serial)).run(
                package, static_plan(package), log=tmp_path / "log"
            )
        assert failure.value.code == "app-dtype"
        assert failure.value.why.startswith("mask_5 of prefill is uint16, and ")
        assert not list((phone.disk.root / "data/local/tmp").iterdir())

    def test_a_program_for_another_chip_is_refused_before_anything_is_pushed(
        self, server: Adb, new_phone: NewPhone, quantised: Path, tmp_path: Path
    ) -> None:
        package = Path(shutil.copytree(quantised, tmp_path / "qnn"))
        manifest = json.loads((package / "manifest.json").read_text())
        manifest["plan"] |= {"soc_model": "SM8650", "backend": "qnn"}
        (package / "manifest.json").write_text(json.dumps(manifest))
        other: FakePhone = new_phone({"ro.soc.model": "SM8750"})
        same: FakePhone = new_phone({"ro.soc.model": "SM8650-AC"})
        silent: FakePhone = new_phone({"ro.soc.model": "", "ro.board.platform": "pineapple"})
        for phone, kind, code in (
            (other, AdbHarness, "device-soc"),
            (other, AppHarness, "device-soc"),
            (same, AdbHarness, "native-runner-backend"),
            (silent, AdbHarness, "native-runner-backend"),
        ):
            with pytest.raises(MissingError) as failure:
                kind(server.on(phone.serial)).run(package, PLAN, log=tmp_path / "log")
            assert failure.value.code == code
            assert failure.value.next
            assert not list((phone.disk.root / "data/local/tmp").iterdir())
