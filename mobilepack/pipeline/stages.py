"""Time the stages of a build and tell the caller how far it is."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mobilepack.contract.manifest import StageCost

OnStage = Callable[[str, float], None]
"""Called with a stage's name and the share of it that is done, 0 to 1."""


def silent(stage: str, share: float) -> None:
    """Ignore progress."""


@dataclass(slots=True)
class Stages:
    """The stages of one build, each timed as it ends."""

    on_stage: OnStage = silent
    costs: list[StageCost] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        """Time a stage; yields what tells the share that is done."""
        wall, cpu = time.monotonic(), _cpu_seconds()
        self.on_stage(name, 0.0)
        yield lambda share: self.on_stage(name, share)
        self.on_stage(name, 1.0)
        self.costs.append(
            StageCost(
                name=name,
                wall_s=round(time.monotonic() - wall, 3),
                cpu_s=round(_cpu_seconds() - cpu, 3),
                peak_rss_bytes=_peak_rss_bytes(),
            )
        )


def _cpu_seconds() -> float:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak_rss_bytes() -> int:
    # ru_maxrss is in kilobytes on Linux, in bytes on macOS (getrusage(2) of each)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
