"""Lowering in a child process: what it says, what its death means."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mobilepack.backends.qnn.field_errors import cause_of
from mobilepack.backends.qnn.request import LowerRequest, LowerResult
from mobilepack.backends.qnn.sdk import Sdk
from mobilepack.errors import BuildError
from mobilepack.process import Child, Finished

CHILD = (sys.executable, "-P", "-m", "mobilepack.backends.qnn.lower_child")
TIMEOUT_S = 4 * 3600.0
"""A 1B model takes five minutes of one core; by ExecuTorch's own passes an hour."""

_EXIT_S = 60.0
_LAST_LINES = 3


def run_lowering(
    request: LowerRequest,
    sdk: Sdk,
    log: Path,
    on_stage: Callable[[str, float], None],
    *,
    timeout_s: float = TIMEOUT_S,
    child: tuple[str, ...] = CHILD,
) -> LowerResult:
    """Lower a model in a child process.

    Args:
        request: What to lower.
        sdk: Qualcomm's libraries.
        log: Receives all that the child and its libraries print (appended).
        on_stage: Told stages and shares.
        timeout_s: Limit of the whole.
        child: Its command; tests bring one that dies.

    Raises:
        BuildError: The child failed, crashed or ran past the limit; no program is left.
    """
    with tempfile.TemporaryDirectory(prefix="mobilepack-qnn-") as folder:
        asked, answer = Path(folder) / "request", Path(folder) / "result"
        request.save(asked)
        argv = (*child, str(asked), str(answer))
        with Child(argv, log=log, env=sdk.environment()) as running:
            done = _follow(running, on_stage, timeout_s)
        if done.returncode == 0 and not done.timed_out and answer.is_file():
            return LowerResult.load(answer)
    request.out.unlink(missing_ok=True)
    raise failure(done, log)


def _follow(child: Child, on_stage: Callable[[str, float], None], timeout_s: float) -> Finished:
    """Pass progress on until the child's output ends; kill it when its time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            line = child.receive(deadline - time.monotonic())
        except TimeoutError:
            return child.kill()
        if line is None:
            return child.finish(_EXIT_S)
        stage, _, share = line.rpartition(" ")
        on_stage(stage, float(share))


def failure(done: Finished, log: Path) -> BuildError:
    """Return the error for a child that did not do its work."""
    said = log.read_text(errors="replace") if log.is_file() else ""
    cause = cause_of(said)
    if cause is not None:
        return BuildError(
            f"qnn-{cause.name}",
            "cannot lower this model for QNN",
            why=f"{cause.cause} ({cause.quote})",
            next=f"{cause.remedy}; the whole log: {log}",
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    words = " | ".join(lines[-_LAST_LINES:])[-600:]
    return BuildError(
        "qnn-timeout" if done.timed_out else "qnn-lowering-failed",
        "cannot lower this model for QNN",
        why=f"the child process ended with {done.ending}; its last words: {words or 'none'}",
        next=f"read the whole log: {log}",
    )
