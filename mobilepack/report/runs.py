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

RUNS = "runs"
PARITY = "parity.json"
BENCH = "bench.json"
EVALUATION = "eval.json"
T = TypeVar("T", Parity, Bench, Evaluation)


@dataclass(frozen=True, slots=True)
class Runs:
    """What `verify` and `bench` left in a package.

    Attributes:
        parity: The newest check of each device, of this very build.
        bench: The newest timing of each device, of this very build.
        evaluations: The newest task accuracy of each device, of this very build.
        stale: Folders of runs that belong to another build of the package.
    """

    parity: tuple[Parity, ...]
    bench: tuple[Bench, ...]
    stale: tuple[Path, ...]
    evaluations: tuple[Evaluation, ...] = ()


def read_runs(root: Path, manifest: Manifest) -> Runs:
    """Read the newest runs below a package.

    Raises:
        UsageError: A result file breaks its schema.
    """
    stale: list[Path] = []
    parity = _newest(root, PARITY, Parity, manifest.plan_id, stale)
    bench = _newest(root, BENCH, Bench, manifest.plan_id, stale)
    evaluations = _newest(root, EVALUATION, Evaluation, manifest.plan_id, stale)
    return Runs(parity, bench, tuple(stale), evaluations)


def _newest(root: Path, name: str, kind: type[T], plan_id: str, stale: list[Path]) -> tuple[T, ...]:
    """Return the newest `runs/<device>/<utc>/<name>` of each device; <utc> sorts by time."""
    newest: dict[str, T] = {}
    for path in sorted((root / RUNS).glob(f"*/*/{name}")):
        record: T = _read(kind, path)
        if record.plan_id == plan_id:
            newest[path.parent.parent.name] = record
        else:
            stale.append(path.parent)
    return tuple(newest.values())


def _read(kind: type[T], path: Path) -> T:
    record: Contract = kind.read(path)
    assert isinstance(record, kind)  # noqa: S101 - `read` returns Self
    return record
