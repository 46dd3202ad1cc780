"""Programs of the static form on a virtual phone: their manifest goes along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mobilepack.errors import RunFailedError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.harness import AdbHarness
from mobilepack.harness.android.store import ROOT
from mobilepack.harness.base import Progress
from mobilepack.harness.host import HostHarness
from tests.harness.static_packages import (
    WITHOUT_WARNINGS,
    Packages,
    check_same_rows,
    static_packages,
    static_plan,
)

__all__ = ["static_packages"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned"), *WITHOUT_WARNINGS]


@pytest.mark.parametrize("kind", ["windows", "portable"])
def test_arm64_computes_what_python_computes_here(
    kind: str, on_phone: Adb, static_packages: Packages, tmp_path: Path
) -> None:
    package, log = static_packages(kind), tmp_path / "log"
    plan = static_plan(package)
    ours, theirs = (
        one.run(package, plan, log=log) for one in (AdbHarness(on_phone), HostHarness())
    )
    check_same_rows(ours, theirs)


def test_a_manifest_is_pushed_once_and_anew_when_it_changed(
    on_phone: Adb, static_packages: Packages, tmp_path: Path
) -> None:
    package = Path(shutil.copytree(static_packages("windows"), tmp_path / "a b'$(c)\n"))
    path, seen = package / "manifest.json", list[Progress]()
    plan = static_plan(package)
    plan = plan.model_copy(update={"items": plan.items[2:3]})

    def pushed() -> list[str]:
        seen.clear()
        AdbHarness(on_phone).run(package, plan, log=tmp_path / "log", on_progress=seen.append)
        return [one.item.split()[1] for one in seen if one.item.startswith("push")]

    pushed()
    assert pushed() == []
    path.write_text(path.read_text() + "\n")
    assert pushed() == ["manifest.json"]
    assert on_phone.ask(["ls", f"{ROOT}/runs"]) == ""


def test_a_manifest_of_another_program_is_a_report(
    on_phone: Adb, static_packages: Packages, tmp_path: Path
) -> None:
    package = Path(shutil.copytree(static_packages("windows"), tmp_path / "package"))
    document = json.loads((package / "manifest.json").read_text())
    del document["methods"][1]["inputs"][-1]
    (package / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(RunFailedError, match="prefill and decode have other caches"):
        AdbHarness(on_phone).run(package, static_plan(package), log=tmp_path / "log")
