"""Builds in forked processes that can be killed anywhere; run as `python -m`, see `BuildServer`.

A process of its own imports everything once, then forks for each build, so that a build costs no
start-up. A build's events are its progress calls and its file operations below the output folder
(Python's audit events), which makes "kill it at event 17" exact and repeatable.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
_FILE_EVENTS = {
    "open",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
    "shutil.copyfile",
}


@dataclass(frozen=True)
class Order:
    """One build.

    Attributes:
        choices: Arguments of `Choices`.
        kill_at: Event before which the build kills itself with SIGKILL, from 1.
        file_limit_bytes: RLIMIT_FSIZE of the build.
    """

    model: str
    out: str
    choices: dict[str, Any] = field(default_factory=dict)
    force: bool = False
    kill_at: int | None = None
    file_limit_bytes: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a build ended.

    Attributes:
        signal: What killed it, 0 if it ended by itself.
        events: Every event in order, for example `os.rename .xnnpack.partial`.
    """

    signal: int
    events: tuple[str, ...] = ()
    up_to_date: bool = False
    plan_id: str = ""
    error: str = ""
    what: str = ""
    why: str = ""
    exit_code: int = 0


class BuildServer:
    """The forking process, seen from the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.build_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        assert self._read() == {"ready": True}

    def start(self, order: Order) -> tuple[int, Path]:
        """Start a build; returns its process id and the file of its outcome."""
        self._count += 1
        result = self._folder / f"{self._count}.json"
        self._say({"start": vars(order) | {"result": str(result)}})
        return int(self._read()["pid"]), result

    def wait(self, started: tuple[int, Path]) -> Outcome:
        """Wait for a build's end."""
        pid, result = started
        self._say({"wait": pid})
        status = int(self._read()["status"])
        if os.WIFSIGNALED(status):
            return Outcome(os.WTERMSIG(status))
        data = json.loads(result.read_text())
        return Outcome(**{**data, "signal": 0, "events": tuple(data["events"])})

    def build(self, order: Order) -> Outcome:
        """Build and wait."""
        return self.wait(self.start(order))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


# --- the forking process ---


def _serve() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _warm_up()
    replies.write('{"ready": true}\n')
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            replies.write(json.dumps({"status": status}) + "\n")
            continue
        pid = os.fork()
        if pid == 0:
            _run(**request["start"])
        replies.write(json.dumps({"pid": pid}) + "\n")


def _warm_up() -> None:
    """Do once what every build would do: imports, and torch.export's own first-time work."""
    import torch

    import mobilepack.backends.xnnpack.lower
    import mobilepack.commands.build
    import mobilepack.pipeline.build  # noqa: F401
    from mobilepack.pipeline.export import export_decoder
    from tests.models.networks import tiny_spec

    torch.set_num_threads(1)
    export_decoder(tiny_spec(num_hidden_layers=1), 8, 4)


def _run(result: str, kill_at: int | None, file_limit_bytes: int | None, **order: Any) -> None:
    """Build in the forked child and never return."""
    if file_limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, resource.RLIM_INFINITY))
    events: list[str] = []
    out = os.path.realpath(order["out"])

    def happened(event: str) -> None:
        events.append(event)
        if len(events) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        if name in _FILE_EVENTS and isinstance(arguments[0], str | Path):
            path = str(Path(arguments[0]).absolute())
            if path.startswith(out):
                happened(f"{name} {os.path.relpath(path, out)}")

    sys.addaudithook(audit)
    outcome = _build(order, lambda stage, share: happened(f"stage {stage} {share:.3f}"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    Path(result).write_text(json.dumps(outcome | {"events": list(events)}))
    os._exit(0)


def _build(order: dict[str, Any], on_stage: Any) -> dict[str, Any]:
    from mobilepack.commands.build import BuildOptions, build
    from mobilepack.errors import MobilepackError
    from mobilepack.pipeline.plan import Choices

    options = BuildOptions(
        model=order["model"],
        out=Path(order["out"]),
        choices=Choices(**order["choices"]),
        force=order["force"],
    )
    try:
        (built,) = build(options, on_stage=on_stage)
    except MobilepackError as err:
        told = {"error": err.code, "what": err.what, "why": err.why}
        return told | {"exit_code": int(err.exit_code)}
    except Exception as err:
        return {"error": "bug", "why": repr(err), "exit_code": 1}
    return {"up_to_date": built.up_to_date, "plan_id": built.manifest.plan_id}


if __name__ == "__main__":
    _serve()
