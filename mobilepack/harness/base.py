"""What every harness offers: find devices, run a plan, within a time limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult

DeviceKind = Literal["host", "emulator", "simulator", "device"]


@dataclass(frozen=True, slots=True)
class Device:
    """One place a plan can run.

    Attributes:
        id: How the user names it: `host`, a serial or a UDID.
        name: What people call it.
        state: `ready`, or what is wrong with it.
    """

    id: str
    name: str
    kind: DeviceKind
    state: str = "ready"


@dataclass(frozen=True, slots=True)
class Progress:
    """A run's heartbeat: item `done` of `total` is beginning; `done == total` at the end."""

    item: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Ignore progress."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take before it is stopped and reported.

    Attributes:
        load_s: Start of the process and load of the program.
        run_s: Everything.
    """

    load_s: float = 300.0
    run_s: float = 3600.0

    @classmethod
    def within(cls, timeout_s: float) -> Self:
        """Return limits of which none is above a time."""
        return cls(load_s=min(cls().load_s, timeout_s), run_s=timeout_s)


NO_HURRY = Limits()


class Harness(Protocol):
    """Runs plans on one device; construct one per device, any number of runs."""

    @property
    def device(self) -> Device:
        """The device this harness runs on."""

    def run(
        self,
        package: Path,
        plan: RunPlan,
        *,
        log: Path,
        limits: Limits = NO_HURRY,
        on_progress: OnProgress = silent,
    ) -> RunResult:
        """Run a plan against a package's program.

        Args:
            package: Root of the package.
            plan: What to run; `plan.program` is relative to `package`.
            log: File that receives everything the runtime printed (appended).
            limits: Time limits.
            on_progress: Called as each item begins.

        Raises:
            RunFailedError: The runtime refused the program, died (the signal is named) or ran past
                a limit; `why` quotes the last words of the log.
        """
