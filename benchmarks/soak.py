"""Run plans on several phones while they break at random; in the end every record must be exact.

    python -m benchmarks.soak --plans 200                       # our device side of adb, x86_64
    python -m benchmarks.soak --plans 200 --virtual --out FILE  # real adbd, real ARM64 kernels

A plan that fails is run again on the same phone until it is whole. What it brings must be, to the
last bit, what an undisturbed phone brings, and no item may run more often than faults explain.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import queue
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from mobilepack.commands.build import BuildOptions, build
from mobilepack.contract.run_plan import Generate, RunPlan, Teacher, Time
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import RunFailedError
from mobilepack.harness.android.adb import Adb, find_adb
from mobilepack.harness.android.harness import AdbHarness
from mobilepack.harness.android.store import ROOT
from mobilepack.harness.base import Harness, Limits, Progress
from mobilepack.harness.lease import holder
from mobilepack.harness.native.local import NativeHarness
from mobilepack.harness.virtual import phones
from mobilepack.pipeline.plan import Choices
from mobilepack.process import run
from mobilepack.testing.phone import FakePhone, Fault

SERVER_PORT = 5039
ATTEMPTS = 12
_BACK_S = 120.0
_VOCABULARY = 2000  # of the embedded model's 2048 tokens


class Breakable(Protocol):
    """A phone that can be broken."""

    @property
    def adb(self) -> Adb:
        """adb with its serial."""

    @property
    def limits(self) -> Limits:
        """What one attempt may take."""

    def disturb(self, dice: random.Random) -> str:
        """Let something go wrong during the next attempt; return its name, empty for nothing."""

    def recover(self) -> None:
        """Undo what would go wrong for ever, and reconnect."""


@dataclass
class Record:
    """What a soak found.

    Attributes:
        exact: Plans whose result is that of an undisturbed phone.
        items: Items of all plans; `begun` counts how often one began.
        outcomes: How often an attempt ended with which error.
        left: Files of runs that stayed on phones, and leases that somebody holds.
    """

    phones: str
    plans: int
    seed: int
    plans_by_phone: list[int] = field(default_factory=list)
    exact: int = 0
    attempts: int = 0
    items: int = 0
    begun: int = 0
    resumed: int = 0
    disturbed: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    @property
    def problems(self) -> list[str]:
        """What is not as it must be."""
        found = list(self.left)
        if self.exact != self.plans:
            found.append(f"{self.exact} of {self.plans} plans are exact")
        failed = self.attempts - self.plans
        if self.begun > self.items + failed:  # what began unheard, after a cut, is not counted
            found.append(f"{self.items} items began {self.begun} times with {failed} failures")
        return found


def plans(count: int, seed: int) -> list[RunPlan]:
    """Return plans, each another, of four short items."""
    dice = random.Random(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(dice.randrange(1, _VOCABULARY) for _ in range(length))

    made = []
    for n in range(count):
        items = (
            Teacher(name=f"{n} a", token_ids=ids(6), calls=(4, 1, 1)),
            Generate(name=f"{n} b", token_ids=ids(3), max_new_tokens=3),
            # Its pause gives a fault something to interrupt.
            Time(name=f"{n} c", token_ids=ids(1), n_prompt=2, n_gen=1, warmups=0, repetitions=1,
                 cooldown_s=dice.choice((0.0, 0.3))),
            Teacher(name=f"{n} d", token_ids=ids(4), calls=(2, 1, 1)),
        )  # fmt: skip
        made.append(_plan(items))
    return made


def _plan(items: Sequence[Teacher | Generate | Time]) -> RunPlan:
    return RunPlan(
        max_seq_len=64, prefill_chunk=32, sample_ids=(0, 5), top_k=4, threads=1, items=tuple(items)
    )


def soak(
    package: Path,
    todo: Sequence[RunPlan],
    breakable: Sequence[Breakable],
    undisturbed: Sequence[Harness],
    record: Record,
    minutes: float = math.inf,
) -> Record:
    """Run every plan on some phone, as many as are begun in so many minutes; return the record.

    Args:
        undisturbed: For each phone, what runs its plans anew once it is quiet. Kernels of another
            processor may round in another way.
    """
    begin = time.monotonic()
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(todo)):
        waiting.put(number)
    results: list[dict[int, RunResult]] = [{} for _ in breakable]
    lock = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="mobilepack-soak-") as folder:

        def work(place: int) -> None:
            dice = random.Random(record.seed * 1000 + place)
            with contextlib.suppress(queue.Empty):
                while time.monotonic() - begin < 60 * minutes:
                    number = waiting.get_nowait()
                    bench = _Attempts(breakable[place], dice, record, lock, Path(folder))
                    results[place][number] = bench.until_whole(package, todo[number])

        with ThreadPoolExecutor(len(breakable)) as pool:
            list(pool.map(work, range(len(breakable))))
        for phone in breakable:
            phone.recover()
        for found, quiet in zip(results, undisturbed, strict=True):
            record.plans_by_phone.append(len(found))
            if not found:
                continue
            steps = [i for n in found for i in todo[n].items if not isinstance(i, Time)]
            expected = quiet.run(package, _plan(steps), log=Path(folder) / "expected")
            record.exact += sum(_exact(todo[n], one, expected) for n, one in found.items())
            record.items += sum(len(todo[n].items) for n in found)
    record.plans = sum(record.plans_by_phone)
    record.left = [text for phone in breakable for text in _left(phone)]
    record.wall_s = round(time.monotonic() - begin, 1)
    return record


def _exact(plan: RunPlan, found: RunResult, expected: RunResult) -> bool:
    names = {item.name for item in plan.items}
    rows = tuple(row for row in expected.rows if row.item in names)
    texts = [one.token_ids for one in expected.generated if one.item in names]
    timed = [item.name for item in plan.items if isinstance(item, Time)]
    return (
        found.rows == rows
        and [one.token_ids for one in found.generated] == texts
        and [one.item for one in found.timings] == timed
    )


def _left(phone: Breakable) -> list[str]:
    phone.recover()
    held = holder(phone.adb.serial)
    files = phone.adb.ask(["ls", f"{ROOT}/runs"])
    return [f"{phone.adb.serial}: {text}" for text in (str(held or ""), files) if text]


class _Attempts:
    """One plan on one phone, until it is whole."""

    def __init__(
        self,
        phone: Breakable,
        dice: random.Random,
        record: Record,
        lock: threading.Lock,
        folder: Path,
    ) -> None:
        self._phone, self._dice, self._record = phone, dice, record
        self._lock, self._log = lock, folder / phone.adb.serial.replace(":", "-")

    def until_whole(self, package: Path, plan: RunPlan) -> RunResult:
        names = {item.name for item in plan.items}

        def begun(progress: Progress) -> None:
            if progress.item in names:
                with self._lock:
                    self._record.begun += 1

        for _ in range(ATTEMPTS):
            what = self._phone.disturb(self._dice)
            self._count(self._record.disturbed, what or "nothing")
            harness = AdbHarness(self._phone.adb, purpose="soak")
            try:
                result = harness.run(
                    package, plan, log=self._log, limits=self._phone.limits, on_progress=begun
                )
            except RunFailedError as err:
                self._count(self._record.outcomes, err.code)
                self._phone.recover()
                continue
            finally:
                with self._lock:
                    self._record.attempts += 1
            with self._lock:
                self._record.resumed += "resumed" in result.environment.conditions
            return result
        raise AssertionError(f"{plan.items[0].name} is not whole after {ATTEMPTS} attempts")

    def _count(self, where: dict[str, int], key: str) -> None:
        with self._lock:
            where[key] = where.get(key, 0) + 1


class FakeOne:
    """Our device side of adb."""

    limits = Limits(run_s=4)
    _FAULTS = (
        *((kind, phase) for kind in ("cut", "reboot") for phase in ("push", "run", "pull")),
        ("kill", "run"),
        ("hang", "run"),
    )

    def __init__(self, phone: FakePhone, server: Adb) -> None:
        """Take a phone that runs."""
        self._phone, self._server = phone, server
        self.adb = server.on(phone.serial)

    def disturb(self, dice: random.Random) -> str:
        """Arm a fault in a third of all attempts."""
        if dice.random() > 1 / 3:
            return ""
        if dice.random() < 0.1:
            self._phone.disk.set_space(0)
            return "full"
        kind, phase = dice.choice(self._FAULTS)
        most = 4000 if phase == "run" else 200
        fault = Fault(kind, phase, dice.randrange(1, most))  # type: ignore[arg-type]
        self._phone.faults.arm(fault)
        return f"{kind} {phase}"

    def recover(self) -> None:
        """Free the disk, forget what has not happened, connect again."""
        self._phone.disk.set_space(1 << 40)
        self._phone.faults.clear()
        _reconnect(self._server, self._phone.serial)


class VirtualOne:
    """A virtual phone: the real adbd, broken from this side."""

    limits = Limits(run_s=60)

    def __init__(self, phone: phones.Phone, server: Adb) -> None:
        """Take a phone that runs."""
        self._phone, self._server = phone, server
        self.adb = server.on(phone.serial)
        self._timer: threading.Timer | None = None

    def disturb(self, dice: random.Random) -> str:
        """Do something to it a little later in a third of all attempts."""
        if dice.random() > 1 / 3:
            return ""
        name = dice.choice(("cut", "reboot", "kill", "hang"))
        deeds: dict[str, Callable[[], object]] = {
            "cut": lambda: self._server.disconnect(self._phone.serial),
            "reboot": lambda: phones.stop(self._phone, self._server),
            "kill": lambda: self._signal("KILL"),
            "hang": lambda: self._signal("STOP"),
        }
        self._timer = threading.Timer(dice.uniform(0.5, 8.0), self._do, [deeds[name]])
        self._timer.start()
        return name

    def _do(self, deed: Callable[[], object]) -> None:
        with contextlib.suppress(RunFailedError):  # it may be away already
            deed()

    def _signal(self, name: str) -> None:
        script = f"for f in {ROOT}/runs/*/pid; do kill -{name} $(cat $f); done"
        self.adb.shell(["sh", "-c", script])

    def recover(self) -> None:
        """Start it again if need be, and connect."""
        if self._timer is not None:
            self._timer.join()
        phones.start(self._phone, self._server)
        _reconnect(self._server, self._phone.serial)


def _reconnect(server: Adb, serial: str) -> None:
    deadline = time.monotonic() + _BACK_S
    while True:
        try:
            server.connect(serial)
            if server.on(serial).ask(["echo", "here"]) == "here":
                return
        except RunFailedError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


@contextlib.contextmanager
def fake_phones(count: int, server: Adb) -> Iterator[list[Breakable]]:
    """Give phones of our own device side."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(FakePhone()) for _ in range(count)]
        for one in made:
            _reconnect(server, one.serial)
            stack.callback(server.disconnect, one.serial)
        yield [FakeOne(one, server) for one in made]


@contextlib.contextmanager
def virtual_phones(count: int, server: Adb) -> Iterator[list[Breakable]]:
    """Give virtual phones, two kinds of processors in turn."""
    made: list[phones.Phone] = []
    try:
        for n in range(count):
            made.append(phones.create(f"soak-{n}", ("cortex-a76", "cortex-a53")[n % 2]))
            phones.start(made[-1], server)
        yield [VirtualOne(one, server) for one in made]
    finally:
        for one in made:
            phones.delete(one, server)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--plans", type=int, default=200)
    parser.add_argument("--phones", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no plan after")
    parser.add_argument("--virtual", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    server = Adb(find_adb(), port=SERVER_PORT)
    kind = "virtual phones" if asked.virtual else "fake phones"
    record = Record(f"{asked.phones} {kind}", asked.plans, asked.seed)
    phones_of = virtual_phones if asked.virtual else fake_phones
    with tempfile.TemporaryDirectory(prefix="mobilepack-soak-") as out:
        choices = Choices(max_seq_len=64, prefill_chunk=32)
        package = build(BuildOptions(out=Path(out), choices=choices))[0].folder
        try:
            with phones_of(asked.phones, server) as breakable:
                quiet: list[Harness] = [
                    AdbHarness(one.adb) if asked.virtual else NativeHarness() for one in breakable
                ]
                soak(
                    package, plans(asked.plans, asked.seed), breakable, quiet, record, asked.minutes
                )
        finally:
            run(server.argv("kill-server"), timeout_s=30)
    text = json.dumps(asdict(record) | {"problems": record.problems}, indent=2) + "\n"
    sys.stdout.write(text)
    if asked.out:
        asked.out.write_text(text)
    return 1 if record.problems else 0


if __name__ == "__main__":
    sys.exit(main())
