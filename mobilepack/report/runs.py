"""The newest check and the newest timing of a package, per device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mobilepack.contract.base import Contract
from mobilepack.contract.bench import Bench
from mobilepack.contract.evaluation import Evaluation
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.parity import Parity
from mobilepack.errors import UsageError

RUNS = "runs"
PARITY = "parity.json"
BENCH = "bench.json"
EVALUATION = "eval.json"
T = TypeVar("T", Parity, Bench, Evaluation)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A result file that is damaged, or of another version, and why."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class Runs:
    """What `verify` and `bench` left in a package.

    Attributes:
        parity: The newest check of each device, of this very build.
        bench: The newest timing of each device, of this very build.
        evaluations: The newest task accuracy of each device, of this very build.
        stale: Folders of runs that belong to another build of the package.
        unreadable: Result files that cannot be read; what they say is missing above.
    """

    parity: tuple[Parity, ...]
    bench: tuple[Bench, ...]
    stale: tuple[Path, ...]
    evaluations: tuple[Evaluation, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()

    def whole(self) -> Runs:
        """Return these runs if nothing of them is lost.

        Raises:
            UsageError: A result file cannot be read; a verdict without it would be none.
        """
        if not self.unreadable:
            return self
        raise UsageError(
            "unreadable-result",
            "cannot read all results of the package",
            why="; ".join(f"{one.path}: {one.why}" for one in self.unreadable),
            next="delete the files named, or run `mobilepack verify` and `bench` again",
        )


def read_runs(root: Path, manifest: Manifest) -> Runs:
    """Read the newest runs below a package; a damaged file takes down none of the others."""
    reader = _Reader(root, manifest.plan_id)
    parity = reader.newest(PARITY, Parity)
    bench = reader.newest(BENCH, Bench)
    evaluations = reader.newest(EVALUATION, Evaluation)
    return Runs(parity, bench, tuple(reader.stale), evaluations, tuple(reader.unreadable))


class _Reader:
    """Reads results and keeps what does not count."""

    def __init__(self, root: Path, plan_id: str) -> None:
        self.root = root
        self.plan_id = plan_id
        self.stale: list[Path] = []
        self.unreadable: list[Unreadable] = []

    def newest(self, name: str, kind: type[T]) -> tuple[T, ...]:
        """Return the newest `runs/<device>/<utc>/<name>` of each device; <utc> sorts by time."""
        newest: dict[str, T] = {}
        for path in sorted((self.root / RUNS).glob(f"*/*/{name}")):
            try:
                record: T = _read(kind, path)
            except UsageError as err:
                self.unreadable.append(Unreadable(path, err.why))
                continue
            if record.plan_id == self.plan_id:
                newest[path.parent.parent.name] = record
            else:
                self.stale.append(path.parent)
        return tuple(newest.values())


def _read(kind: type[T], path: Path) -> T:
    record: Contract = kind.read(path)
    assert isinstance(record, kind)  # noqa: S101 - `read` returns Self
    if _oversized(record):
        raise UsageError(
            "invalid-file",
            f"{path} is not a valid {kind.__name__}",
            why="a whole number needs more than 64 bits, and no clock or memory has so many",
            next="run it again",
        )
    return record


def _oversized(value: object) -> bool:
    """Return whether any whole number is one that no division turns into a float."""
    if isinstance(value, Contract):
        return any(_oversized(one) for _, one in value)
    if isinstance(value, tuple):
        return any(_oversized(one) for one in value)
    return isinstance(value, int) and abs(value) >= 2**63
