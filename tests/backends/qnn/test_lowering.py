"""The child that lowers: its progress, its failures, and (slow) its real work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mobilepack.backends.qnn.lowering import run_lowering
from mobilepack.backends.qnn.request import LowerRequest
from mobilepack.backends.qnn.sdk import Sdk
from mobilepack.errors import BuildError, ExitCode
from tests.models.networks import tiny_spec

LOGS = Path(__file__).resolve().parents[2] / "data" / "qnn"


def request(folder: Path) -> LowerRequest:
    out = folder / "model.pte"
    out.write_bytes(b"half a program")
    return LowerRequest(
        spec=tiny_spec(),
        weights=folder / "none",
        shared={},
        precision="fp16",
        max_seq_len=32,
        prefill_tokens=8,
        soc_model="SM8650",
        heads="together",
        rows=(),
        passages=(),
        metadata={},
        out=out,
    )


def lowered(folder: Path, script: str, timeout_s: float = 60.0) -> list[tuple[str, float]]:
    told: list[tuple[str, float]] = []
    sdk = Sdk(folder, "2.49.40", "package")
    run_lowering(
        request(folder),
        sdk,
        folder / "log",
        lambda stage, share: told.append((stage, share)),
        timeout_s=timeout_s,
        child=(sys.executable, "-c", script),
    )
    return told


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("import os; os.kill(os.getpid(), 11)", "qnn-lowering-failed", "killed by SIGSEGV"),
        ("import sys; sys.exit('boom')", "qnn-lowering-failed", "boom"),
        ("pass", "qnn-lowering-failed", "exit status 0"),
        ("import time; time.sleep(60)", "qnn-timeout", "stopped after"),
    ],
)
def test_a_child_that_dies_leaves_its_log_and_no_program(
    tmp_path: Path, script: str, code: str, says: str
) -> None:
    with pytest.raises(BuildError) as caught:
        lowered(tmp_path, script, timeout_s=3.0)
    assert caught.value.code == code
    assert says in caught.value.why
    assert str(tmp_path / "log") in caught.value.next
    assert caught.value.exit_code == ExitCode.BUILD_FAILED
    assert (tmp_path / "log").is_file()
    assert not (tmp_path / "model.pte").exists()


def test_a_known_failure_is_explained(tmp_path: Path) -> None:
    log = LOGS / "graph-too-large.txt"
    script = f"import sys; sys.stderr.write(open({str(log)!r}).read()); sys.exit(1)"
    with pytest.raises(BuildError) as caught:
        lowered(tmp_path, script)
    assert caught.value.code == "qnn-graph-too-large"
    assert "requires" in caught.value.why.lower()
    assert "--prefill-chunk" in caught.value.next


def test_progress_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(BuildError):
        assert lowered(tmp_path, "print('compile 0.5'); raise SystemExit(1)") == [("compile", 0.5)]
