"""Programs of the static form by the native runner, held against Python's harness."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import RunFailedError
from mobilepack.harness.host import HostHarness
from mobilepack.harness.native.build import RUNNER, built_runner
from mobilepack.harness.native.local import NativeHarness
from tests.harness.parts import fp32, provisioned
from tests.harness.static_packages import (
    WITHOUT_WARNINGS,
    Packages,
    check_same_rows,
    static_packages,
    static_plan,
)

__all__ = ["fp32", "provisioned", "static_packages"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned"), *WITHOUT_WARNINGS]
KINDS = ("embedded", "windows", "integers", "bytes", "portable")


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_python_s_harness_computes(
    kind: str, static_packages: Packages, tmp_path: Path
) -> None:
    package, log = static_packages(kind), tmp_path / "log.txt"
    plan = static_plan(package)
    ours, theirs = (one.run(package, plan, log=log) for one in (NativeHarness(), HostHarness()))
    check_same_rows(ours, theirs)
    (times,) = ours.timings
    assert (len(times.prefill_ns), [len(ns) for ns in times.decode_ns]) == (2, [3, 3])
    assert ours.memory.peak_bytes < theirs.memory.peak_bytes / 3  # no Python, no torch


def test_what_the_form_does_not_hold_is_refused(static_packages: Packages, tmp_path: Path) -> None:
    package = static_packages("windows")
    for calls, said in (((9,), "9 tokens from position 0 on do not fit"),
                        ((1,) * 49, "1 tokens from position 48 on do not fit")):  # fmt: skip
        item = Teacher(name="too long", token_ids=(1,) * 49, calls=calls)
        plan = RunPlan(max_seq_len=64, prefill_chunk=16, items=(item,))
        with pytest.raises(RunFailedError, match=said):
            NativeHarness().run(package, plan, log=tmp_path / "log.txt")


def _without_a_method(document: Any) -> None:
    document["methods"] = document["methods"][:1]


def _another_type(document: Any) -> None:
    for method in document["methods"]:
        for spec in method["inputs"] + method["outputs"]:
            if spec["name"] == "k_0":
                spec["dtype"] = "float16"


def _another_length(document: Any) -> None:
    for method in document["methods"]:
        for spec in method["inputs"]:
            if spec["name"] == "tokens":
                spec["shape"][1] += 3


def _more_outputs(document: Any) -> None:
    document["methods"][0]["outputs"].append({"name": "x", "dtype": "int8", "shape": [1]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without_a_method, "manifest.json: methods: there is no method decode"),
        (_another_type, "prefill: k_0 is Half [1, 2, 32, 47] in manifest.json and "
                        "Float [1, 2, 32, 47] in the program"),
        (_another_length, "prefill: tokens is Int [1, 11] in manifest.json and Int [1, 8] in"),
        (_more_outputs, "prefill has 6 outputs in manifest.json and 5 in the program"),
    ],
)  # fmt: skip
def test_a_manifest_of_another_program_is_one_error(
    change: Callable[[Any], None], said: str, static_packages: Packages, tmp_path: Path
) -> None:
    package = Path(shutil.copytree(static_packages("windows"), tmp_path / "package"))
    document = json.loads((package / "manifest.json").read_text())
    change(document)
    (package / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(RunFailedError, match="the runtime failed while loading") as caught:
        NativeHarness().run(package, static_plan(package), log=tmp_path / "log.txt")
    assert said in caught.value.why


def test_a_program_without_the_methods_says_what_it_has(
    static_packages: Packages, fp32: Path, tmp_path: Path
) -> None:
    package = Path(shutil.copytree(static_packages("windows"), tmp_path / "package"))
    shutil.copy2(fp32 / "model.pte", package)
    with pytest.raises(
        RunFailedError, match=r"the program has no method prefill, it has .*forward"
    ):
        NativeHarness().run(package, static_plan(package), log=tmp_path / "log.txt")


def test_a_program_that_stores_a_tensor_otherwise_is_refused(
    static_packages: Packages, tmp_path: Path
) -> None:
    package = static_packages("turned")
    with pytest.raises(RunFailedError, match=r"v_1 is .* \[1, 2, 47, 16\], not stored by rows"):
        NativeHarness().run(package, static_plan(package), log=tmp_path / "log.txt")


def test_a_manifest_may_lie_elsewhere(static_packages: Packages, tmp_path: Path) -> None:
    """As on a phone, where programs of many packages lie side by side."""
    package = static_packages("windows")
    shutil.copy2(package / "model.pte", tmp_path)
    (tmp_path / "plan.json").write_text(static_plan(package).to_json())
    files = (tmp_path / "plan.json", tmp_path / "result.json")
    argv = (built_runner("x86_64") / RUNNER, tmp_path, *files)
    for manifest, status in ((package / "manifest.json", 0), (tmp_path / "none", 1)):
        done = subprocess.run(
            [*argv, manifest], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status
    assert len(RunResult.read(files[1]).rows) == 42
    assert f"cannot read {tmp_path / 'none'}" in done.stdout
