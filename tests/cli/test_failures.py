"""Wrong command lines end with three lines, the right exit code and no traceback."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from mobilepack.cli import app
from mobilepack.cli.failures import describe, report_failure
from mobilepack.errors import (
    BuildError,
    CheckFailedError,
    ExitCode,
    MissingError,
    RunFailedError,
    UsageError,
)
from tests.packages import toy_package

Run = Callable[..., Any]
THREE_LINES = re.compile(r"error\[[a-z0-9-]+\]: .+\n  why: .+\n  next: .+\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["biuld"], "there is no verb 'biuld'; did you mean 'build'"),
        (["xyz"], "there is no verb 'xyz'; choose from app, bench, build, campaign,"),
        (["--verison"], "there is no option --verison; did you mean '--version'?"),
        (["targets", "--jsn"], "there is no option --jsn; did you mean '--json'?"),
        (["targets", "extra"], "Got unexpected extra argument (extra)"),
        (["verify", "--decode-steps", "many"], "'many' is not a valid integer"),
        (["verify", "--decode-steps", "0"], "0 is not in the range x>=1"),
        (["verify", "--timeout"], "Option '--timeout' requires an argument"),
        (["bench", "-r", "-1"], "-1 is not in the range x>=1"),
        (["chat", "--top-p", "0"], "0.0 is not in the range 0<x<=1"),
        (["chat", "--seed", "1.5"], "'1.5' is not a valid integer"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(run: Run, arguments: list[str], why: str) -> None:
    ran = run(*arguments)
    assert ran.code == ExitCode.USAGE
    assert why in ran.err
    assert THREE_LINES.fullmatch(ran.err)
    assert ran.out == ""


@pytest.mark.parametrize("there", [False, True])
def test_a_build_that_is_refused_leaves_no_folder_of_its_own(
    run: Run, tmp_path: Path, there: bool
) -> None:
    out = tmp_path / "new"
    if there:
        out.mkdir()
    ran = run("build", "--target", "qn", "-o", str(out))
    assert ran.code == ExitCode.USAGE
    assert out.exists() is there


@pytest.mark.parametrize("verb", ["verify", "bench", "chat", "report"])
@pytest.mark.parametrize("kind", ["absent", "file", "empty", "checkpoint"])
def test_what_is_no_package_is_refused(run: Run, tmp_path: Path, verb: str, kind: str) -> None:
    path = tmp_path / kind
    if kind == "file":
        path.write_text("not a package")
    elif kind != "absent":
        path.mkdir()
    if kind == "checkpoint":
        (path / "config.json").write_text("{}")
    ran = run(verb, path)
    assert ran.code == ExitCode.MISSING
    assert THREE_LINES.fullmatch(ran.err)
    assert str(path) in ran.err
    if kind == "checkpoint":
        assert f"mobilepack build {path}" in ran.err


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_a_device_that_is_not_there_says_what_to_do(
    run: Run, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adb = tmp_path / "adb"
    adb.write_text("#!/bin/sh\necho List of devices attached\necho phone-1 device\n")
    adb.chmod(0o755)
    monkeypatch.setenv("MOBILEPACK_ADB", str(adb))
    ran = run(verb, str(toy_package(tmp_path / "p")), "--device", "phone-2")
    assert ran.code == ExitCode.MISSING
    assert "cannot run on the device 'phone-2'" in ran.err
    assert "did you mean 'phone-1'" in ran.err


def test_a_failure_is_one_document_with_json(run: Run) -> None:
    ran = run("report", "nowhere", "--json")
    document = ran.document
    assert ran.err == ""
    assert list(document)[:2] == ["schema", "kind"]
    assert document["schema"] == "mobilepack/error/1"
    assert document["code"] == "no-package"
    assert document["exit_code"] == ran.code == ExitCode.MISSING
    assert set(document) == {"schema", "kind", "code", "what", "why", "next", "exit_code"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x", "x", why="x", next="x"), 2),
        (CheckFailedError("x", "x", why="x", next="x"), 3),
        (BuildError("x", "x", why="x", next="x"), 4),
        (MissingError("x", "x", why="x", next="x"), 5),
        (RunFailedError("x", "x", why="x", next="x"), 6),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (MemoryError(), 4),
        (OSError(errno.ENOSPC, "No space left on device", "out/model.pte"), 4),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 4),
        (ZeroDivisionError("x"), 1),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), 1),
    ],
)
def test_each_failure_has_its_exit_code(error: BaseException, code: int) -> None:
    assert describe(error).exit_code == code


def test_a_bug_leaves_a_log_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ZeroDivisionError("nobody thought of this")
    except ZeroDivisionError as err:
        code = report_failure(err, ["build"])
    printed = capsys.readouterr().err
    assert code == ExitCode.BUG
    assert "Traceback" not in printed
    assert "ZeroDivisionError: nobody thought of this" in printed
    log = re.search(r"log (\S+\.log)", printed)
    assert log is not None
    text = Path(log[1]).read_text()
    Path(log[1]).unlink()
    assert "Traceback" in text
    assert "test_a_bug_leaves_a_log" in text


def test_the_traceback_is_printed_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILEPACK_DEBUG", "1")
    report_failure(UsageError("code", "what", why="why", next="next"), [])
    printed = capsys.readouterr().err
    assert "Traceback" not in printed.splitlines()[-3]
    assert printed.endswith("error[code]: what\n  why: why\n  next: next\n")
    assert "mobilepack.errors.UsageError" in printed


def test_an_interrupted_command_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app.root, "invoke", interrupted)
    ran = run("targets")
    assert ran.code == ExitCode.INTERRUPTED
    assert "error[interrupted]" in ran.err


def test_a_closed_pipe_is_no_error() -> None:
    shell = f'"{sys.executable}" -m mobilepack targets --json | true; echo "${{PIPESTATUS[0]}}"'
    command = ["bash", "-c", shell]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("0", "141")  # 0 when `true` was slower
    assert done.stderr == ""
