"""The doctor says what is there, what is missing, and what to do."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.doctor import (
    Runtime,
    check_cache,
    check_disk,
    check_package,
    check_python,
    check_qnn,
    check_runtime,
    doctor,
    pinned_versions,
    probe_runtime,
)

WHOLE = Runtime(("XnnpackBackend",), ("llama::custom_sdpa.out", "aten::add.out"), "AVX2")


def test_every_row_says_what_it_enables_and_what_to_do(tmp_path: Path) -> None:
    found = doctor(lambda: WHOLE, tmp_path, {"build": tmp_path}, lambda: check_qnn(probe=False))
    names = [check.name for check in found.checks]
    assert len(set(names)) == len(names)
    for check in found.checks:
        assert check.enables
        assert check.found
        assert check.status == "ok" or check.next, check


def test_something_missing_makes_the_diagnosis_incomplete(tmp_path: Path) -> None:
    found = doctor(
        lambda: Runtime(failure="killed by SIGSEGV"), tmp_path, {}, lambda: check_qnn(probe=False)
    )
    runtime = next(check for check in found.checks if check.name == "executorch runtime")
    assert not found.complete
    assert (runtime.status, runtime.found) == ("missing", "killed by SIGSEGV")


def test_a_runtime_without_a_part_names_it() -> None:
    checks = {c.name: c for c in check_runtime(Runtime(("QnnBackend",), ("aten::add.out",)))}
    assert checks["xnnpack backend"].status == "missing"
    assert "QnnBackend" in checks["xnnpack backend"].found
    assert checks["llm operators"].status == "missing"
    assert {c.status for c in check_runtime(WHOLE)} == {"ok"}


def test_pins_are_those_of_the_installed_distribution() -> None:
    assert pinned_versions()["torch"] == "2.13.0"
    assert "numpy" not in pinned_versions()


def test_versions_are_held_against_the_pins() -> None:
    version = importlib.metadata.version("click")
    assert check_package("click", version, "all").status == "ok"
    assert check_package("click", "0.1", "all").status == "warning"
    assert check_package("no-such-thing", "1.0", "all").status == "missing"
    assert check_package("no-such-thing", None, "parity (tests only)").status == "warning"


def test_this_python_is_supported() -> None:
    assert check_python().status == "ok"


def test_folders_that_do_not_exist_yet_are_judged_by_their_parents(tmp_path: Path) -> None:
    assert check_cache("build", tmp_path / "a" / "b").status == "ok"
    assert str(tmp_path) in check_disk(tmp_path / "a").found
    (tmp_path / "file").write_text("")
    assert check_cache("build", tmp_path / "file" / "below").status == "warning"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("import sys; print('boom', file=sys.stderr); sys.exit(3)", "exit status 3: boom"),
        ("pass", "exit status 0"),
    ],
)
def test_a_runtime_that_dies_is_a_finding(script: str, says: str) -> None:
    assert says in probe_runtime(("-c", script)).failure


def test_the_probe_reads_the_last_line() -> None:
    answer = {"backends": ["A"], "operators": ["x"], "cpu_capability": "AVX2"}
    script = f"print('chatter'); print({json.dumps(answer)!r})"
    assert probe_runtime(("-c", script)) == Runtime(("A",), ("x",), "AVX2")


@pytest.mark.slow
def test_the_real_runtime_registers_what_programs_need() -> None:
    runtime = probe_runtime()
    assert {check.status for check in check_runtime(runtime)} == {"ok"}


@pytest.mark.slow
def test_the_verb_prints_one_document(run: Callable[..., Any]) -> None:
    ran = run("doctor", "--json")
    document = ran.document
    assert document["kind"] == "doctor"
    assert ran.code == (0 if document["complete"] else 5)


def test_qualcomms_libraries_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = check_qnn(probe=False)
    assert (check.name, check.status) == ("qnn libraries", "ok")
    assert "QNN 2.49.40, from PyPI" in check.found
    monkeypatch.setenv("QNN_SDK_ROOT", str(tmp_path))
    check = check_qnn(probe=False)
    assert check.status == "warning"
    assert "is not a QAIRT SDK" in check.found
    assert check.next
