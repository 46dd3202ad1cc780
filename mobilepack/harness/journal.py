"""What a run on a device has brought so far, kept on this machine until the run is whole.

A device can go away in the middle of a run. What its items brought is here by then; the same run,
asked for again within a day, carries out only the items that are missing.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import time

from mobilepack.cache import cache_folder
from mobilepack.contract.base import Contract, write_atomically
from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import MobilepackError
from mobilepack.harness.talk import ItemFinished

KEPT_S = 24 * 3600.0
"""Older results belong to another day: the phone's state, if not its software, was another."""


class Attempt(Contract):
    """First line of a journal.

    Attributes:
        began_utc_s: Of the first attempt, seconds since 1970.
        folder: Of the last attempt, on the device.
        plan_sha256: Of the last attempt's plan, which may lack items.
    """

    began_utc_s: float
    folder: str = ""
    plan_sha256: str = ""


class Journal:
    """The journal of one plan on one device."""

    def __init__(self, *key: str) -> None:
        """Open the one that belongs to a key, or begin it.

        Args:
            key: Everything that the results depend on: device, plan, program, runner.
        """
        _forget_old_ones()
        name = hashlib.sha256("\0".join(key).encode()).hexdigest()[:24]
        self._path = cache_folder("journals") / f"{name}.jsonl"
        self.attempt, self.finished = self._read()

    def missing(self, plan: RunPlan) -> RunPlan | None:
        """Return the plan without the items that are here, None if that leaves none."""
        items = tuple(item for item in plan.items if item.name not in self.finished)
        return plan.model_copy(update={"items": items}) if items else None

    def begin(self, folder: str, plan_sha256: str) -> None:
        """Note where on the device an attempt happens."""
        update = {"folder": folder, "plan_sha256": plan_sha256}
        self.attempt = self.attempt.model_copy(update=update)
        self._write()

    def add(self, item: ItemFinished) -> None:
        """Keep what an item brought."""
        self.finished[item.item] = item
        with self._path.open("a", encoding="utf-8") as file:
            file.write(item.model_dump_json() + "\n")

    def whole(self, plan: RunPlan, result: RunResult) -> RunResult:
        """Return the result of the whole plan from the one of its missing items, and what is here.

        Memory's high-water mark is that of all attempts; load and environment are the last one's.
        """
        have = {row.item for row in result.rows}
        have |= {one.item for one in result.generated} | {one.item for one in result.timings}
        kept = [part for name, part in self.finished.items() if name not in have]
        if not kept:
            return result
        places = {item.name: n for n, item in enumerate(plan.items)}
        began = datetime.datetime.fromtimestamp(self.attempt.began_utc_s, datetime.UTC)
        said = f"{len(kept)} of {len(plan.items)} items from {began:%Y-%m-%dT%H:%M:%SZ}"
        conditions = result.environment.conditions | {"resumed": said}
        peak = max([result.memory.peak_bytes, *(part.peak_bytes for part in kept)])
        rows = [*result.rows, *(row for part in kept for row in part.rows)]
        generated = [*result.generated, *(one for part in kept for one in part.generated)]
        timings = [*result.timings, *(one for part in kept for one in part.timings)]
        return result.model_copy(
            update={
                "rows": tuple(sorted(rows, key=lambda row: places[row.item])),
                "generated": tuple(sorted(generated, key=lambda one: places[one.item])),
                "timings": tuple(sorted(timings, key=lambda one: places[one.item])),
                "memory": result.memory.model_copy(update={"peak_bytes": peak}),
                "environment": result.environment.model_copy(update={"conditions": conditions}),
            }
        )

    def forget(self) -> None:
        """Begin anew: the run is whole, or must not be put together from parts."""
        self._path.unlink(missing_ok=True)
        self.attempt, self.finished = self._read()

    def _read(self) -> tuple[Attempt, dict[str, ItemFinished]]:
        lines = self._path.read_text("utf-8").splitlines() if self._path.is_file() else []
        with contextlib.suppress(MobilepackError):
            attempt = Attempt.parse(lines[0], "journal") if lines else None
            if attempt and 0 <= time.time() - attempt.began_utc_s < KEPT_S:
                return attempt, _items(lines[1:])
        return Attempt(began_utc_s=time.time()), {}

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = [self.attempt.model_dump_json()]
        lines += [item.model_dump_json() for item in self.finished.values()]
        write_atomically(self._path, "".join(f"{line}\n" for line in lines))


def _forget_old_ones() -> None:
    for path in cache_folder("journals").glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError):  # somebody else forgets it too
            if path.stat().st_mtime < time.time() - KEPT_S:
                path.unlink()


def _items(lines: list[str]) -> dict[str, ItemFinished]:
    """Return the items of lines; one that was cut short, when this machine died, ends them."""
    found: dict[str, ItemFinished] = {}
    with contextlib.suppress(MobilepackError):
        for line in lines:
            item = ItemFinished.parse(line, "journal")
            found[item.item] = item
    return found
