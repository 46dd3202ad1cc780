"""Which cores of a phone a run is kept on: measured, never known by a chip's name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mobilepack.errors import RunFailedError, UsageError
from mobilepack.harness.android.adb import Adb

ALL, BIG = "all", "big"
_RANGES = re.compile(r"\d{1,3}(-\d{1,3})?(,\d{1,3}(-\d{1,3})?)*")
_MOST = 1024
_CPUS = "/sys/devices/system/cpu"
# Prints `cpu0 capacity=379 khz=1804800`; what the kernel does not tell is empty.
_ASK = (
    f"for c in {_CPUS}/cpu[0-9]*; do "
    'echo "${c##*/} capacity=$(cat $c/cpu_capacity 2>/dev/null)'
    ' khz=$(cat $c/cpufreq/cpuinfo_max_freq 2>/dev/null)"; done'
)
_CORE = re.compile(r"^cpu(\d{1,3}) capacity=(\d{0,9}) khz=(\d{0,9})\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pin:
    """How a run is kept on some cores.

    Attributes:
        words: Put before a command; empty for every core.
        said: For the record.
    """

    words: tuple[str, ...]
    said: dict[str, str]


def pin(adb: Adb, asked: str) -> Pin:
    """Return how a run is kept on the cores that are asked for; the phone is tried.

    Args:
        adb: With the device's serial.
        asked: `all`, `big`, or numbers such as `4-7` or `0,4,5`.

    Raises:
        UsageError: `asked` is none of these.
        RunFailedError: The phone does not tell which cores are big, or refuses these.
    """
    if asked == ALL:
        return Pin((), {"cores": ALL})
    if asked == BIG:
        chosen, measure = big_cores(adb.ask(["sh", "-c", _ASK]))
        if not chosen:
            raise _refused(adb, "it tells neither cpu_capacity nor cpuinfo_max_freq")
    else:
        chosen, measure = parse_cores(asked), "the user"
    words = ("taskset", f"{sum(1 << core for core in chosen):x}")
    status = adb.ask([*words, "cat", "/proc/self/status"])
    granted = re.search(r"^Cpus_allowed_list:\s*(\S+)$", status, re.MULTILINE)
    if granted is None or granted[1] != listed(chosen):
        found = f"it grants {granted[1]}" if granted else "its taskset fails"
        raise _refused(adb, f"{found}, {listed(chosen)} are asked for")
    return Pin(words, {"cores": listed(chosen), "cores_by": measure})


def checked(asked: str) -> str:
    """Return the word or list of cores as it is.

    Raises:
        UsageError: It is none.
    """
    if asked not in (ALL, BIG):
        parse_cores(asked)
    return asked


def big_cores(text: str) -> tuple[frozenset[int], str]:
    """Return the cores within a third of the strongest one, and what says so; none if untold.

    By `cpu_capacity`, in which the kernel counts work per clock too, where every core has one; else
    by `cpuinfo_max_freq`. The native runner chooses its threads likewise (machine.cpp).
    """
    cores = _CORE.findall(text)
    for place, name in ((1, "cpu_capacity"), (2, "cpuinfo_max_freq")):
        told = {int(core[0]): int(core[place]) for core in cores if int(core[place] or 0) > 0}
        if told and (len(told) == len(cores) or place == 2):
            most = max(told.values())
            return frozenset(core for core, one in told.items() if 3 * one >= 2 * most), name
    return frozenset(), ""


def parse_cores(text: str) -> frozenset[int]:
    """Return the cores of a list as Linux writes it: `0,4-7`.

    Raises:
        UsageError: It has another form.
    """
    if _RANGES.fullmatch(text):
        ends = [tuple(map(int, part.split("-"))) for part in text.split(",")]
        if all(one[0] <= one[-1] < _MOST for one in ends):
            return frozenset(core for one in ends for core in range(one[0], one[-1] + 1))
    raise UsageError(
        "bad-cores",
        f"cannot read the cores {text!r}",
        why="they are none of: all, big, a list such as 4-7 or 0,4,5",
        next="--cores big takes the strong ones by what the kernel says of them",
    )


def listed(cores: Iterable[int]) -> str:
    """Return cores as Linux writes them: `0,4-7`."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and runs[-1][1] == core - 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _refused(adb: Adb, why: str) -> RunFailedError:
    return RunFailedError(
        "phone-cores",
        f"{adb.serial} cannot be kept on these cores",
        why=why,
        next="name cores that it has (--cores 4-7), or leave it the choice: --cores all",
    )
