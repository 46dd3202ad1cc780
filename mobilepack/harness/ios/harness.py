"""Plans carried out by an app on a simulator or an iPhone."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import RunFailedError
from mobilepack.harness.base import (
    NO_HURRY,
    Device,
    Limits,
    OnProgress,
    Progress,
    silent,
)
from mobilepack.harness.ios.container import (
    CURRENT,
    FOLDER,
    PACKAGES,
    AppContainer,
    AppPhone,
    Tell,
)
from mobilepack.harness.ios.follow import Follower
from mobilepack.harness.lease import leased

OnPush = Callable[[str, int], None]
"""Hears the name and bytes of each file that is really pushed."""


class AppHarness:
    """Runs plans in an app; see `Harness`."""

    def __init__(self, phone: AppPhone, *, purpose: str = "run", wait_s: float = 0.0) -> None:
        """Make one.

        Args:
            phone: What leads to the app.
            purpose: What others are told who want the device.
            wait_s: How long to wait for another user of it.
        """
        self._phone = phone
        self._purpose = purpose
        self._wait_s = wait_s

    @property
    def device(self) -> Device:
        """The simulator or iPhone."""
        return self._phone.device

    def run(
        self,
        package: Path,
        plan: RunPlan,
        *,
        log: Path,
        limits: Limits = NO_HURRY,
        on_progress: OnProgress = silent,
    ) -> RunResult:
        """Run a plan in the app; see `Harness.run`.

        Raises:
            MissingError: The tools, the runtime or the app are missing.
            RunFailedError: Also when the device is held by somebody else, locked or out of reach.
        """
        total = len(plan.items)

        def tell(what: str) -> None:
            on_progress(Progress(what, 0, total))

        log.touch()
        pushing = tell if self.device.kind == "device" else _nothing  # a simulator's disk is ours
        with (
            leased(self.device.id, self._purpose, self._wait_s),
            self._phone.ready(_nothing) as container,
        ):
            there = push_program(container, package / plan.program, pushing)
            sent = plan.model_copy(update={"program": there, "weight_cache": ""})
            raw = _carried_out(container, sent, log, limits, on_progress)
        result = RunResult.parse(raw, "the app's result")
        _check_plan(result, sent)
        return self._named(result, plan)

    def deploy(self, files: Mapping[str, Path], on_push: OnPush) -> tuple[str, ...]:
        """Make files the package of the app's chat, and end the app: its next start loads them.

        Args:
            files: By name below the package folder.
            on_push: Hears the name and bytes of each file that is really pushed.

        Returns:
            Names that were pushed; none if the app has this package.

        Raises:
            MissingError: The tools or the app are missing.
            RunFailedError: The device is held by somebody else, locked or out of reach.
        """
        digest = _digest_of(files)
        with (
            leased(self.device.id, self._purpose, self._wait_s),
            self._phone.ready(_nothing) as container,
        ):
            if container.read(CURRENT) == digest.encode():
                return ()
            for name, path in files.items():
                on_push(name, path.stat().st_size)
                container.push(path, f"{PACKAGES}/{digest}/{name}")
            _push_text(container, digest, CURRENT)
            container.terminate()
        return tuple(files)

    def _named(self, result: RunResult, plan: RunPlan) -> RunResult:
        """Return the result as the answer to the caller's plan.

        A simulator's times are a Mac's, whatever the app says of itself.
        """
        kind = self.device.kind
        representative = result.environment.representative and kind == "device"
        environment = result.environment.model_copy(
            update={
                "kind": kind,
                "representative": representative,
                "name": f"{result.environment.name} ({self.device.id})",
            }
        )
        digest = hashlib.sha256(plan.to_json().encode()).hexdigest()
        return result.model_copy(update={"plan_sha256": digest, "environment": environment})


def push_program(container: AppContainer, program: Path, tell: Tell) -> str:
    """Push a program unless it is there; return its path below the app's folder.

    A small file beside it is pushed last, so an interrupted push does not count.
    """
    digest = _digest(program)
    folder = f"programs/{digest}"
    path = f"{folder}/{program.name}"
    if container.read(f"{FOLDER}/{folder}/complete") is None:
        tell(f"push {program.name} ({_size(program) / 1e6:.1f} MB)")
        container.push(program, f"{FOLDER}/{path}")
        manifest = program.with_name("manifest.json")  # how a program of the static form is called
        if manifest.is_file():
            container.push(manifest, f"{FOLDER}/{folder}/{manifest.name}")
        _push_text(container, digest, f"{FOLDER}/{folder}/complete")
    return path


def _push_text(container: AppContainer, text: str, there: str) -> None:
    with tempfile.TemporaryDirectory(prefix="mobilepack-ios-") as temporary:
        path = Path(temporary) / Path(there).name
        path.write_text(text)
        container.push(path, there)


def _carried_out(
    container: AppContainer, plan: RunPlan, log: Path, limits: Limits, on_progress: OnProgress
) -> bytes:
    run_id = uuid.uuid4().hex
    _push_text(container, plan.to_json(), f"{FOLDER}/plan-{run_id}.json")
    try:
        with container.launch(("--run", run_id), log) as child:
            return Follower(container, run_id, log, limits).result(child, on_progress)
    finally:
        container.terminate()


def _check_plan(result: RunResult, plan: RunPlan) -> None:
    if result.plan_sha256 != hashlib.sha256(plan.to_json().encode()).hexdigest():
        raise RunFailedError(
            "run-mixed-up",
            "the app's result belongs to another plan",
            why=f"it names plan {result.plan_sha256[:16]}",
            next="install the app that belongs to this mobilepack: mobilepack app ios OUT",
        )


def _files(program: Path) -> list[Path]:
    if program.is_file():
        return [program]
    return sorted(path for path in program.rglob("*") if path.is_file())


def _size(program: Path) -> int:
    return sum(path.stat().st_size for path in _files(program))


def _digest(program: Path) -> str:
    return _digest_of({p.relative_to(program).as_posix(): p for p in _files(program)})


def _digest_of(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _nothing(what: str) -> None:
    """Tell nobody."""
