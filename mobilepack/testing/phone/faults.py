"""What can go wrong with a phone, and when."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

FaultKind = Literal["cut", "reboot", "kill", "hang"]
Phase = Literal["push", "run", "pull"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens once, in the middle of something.

    Attributes:
        kind: `cut`: the connection breaks, and what ran is hung up on, as adbd does; `reboot`: it
            breaks, everything that ran is gone and the phone is away for a while; `kill`: the
            runner gets SIGKILL, as from Android's low-memory killer; `hang`: it gets SIGSTOP.
        during: Where: while a file comes, while the runner runs, while a file goes.
        after_bytes: Of that file, or of what the runner has said on stdout.
    """

    kind: FaultKind
    during: Phase
    after_bytes: int = 1


@dataclass(frozen=True, slots=True)
class Link:
    """How the phone is connected.

    Attributes:
        trust: `yes`, `no` (adb says unauthorized) or `mute` (it never answers: offline).
        bytes_per_s: Speed in each direction; None for as fast as it goes.
    """

    trust: Literal["yes", "no", "mute"] = "yes"
    bytes_per_s: float | None = None


class Faults:
    """Faults that wait for their moment; each happens once."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def arm(self, fault: Fault) -> None:
        """Let a fault happen at the next moment that fits."""
        with self._lock:
            self._waiting.append(fault)

    def due(self, during: Phase, done_bytes: int) -> Fault | None:
        """Return a fault whose moment is now; it does not happen again."""
        with self._lock:
            for fault in self._waiting:
                if fault.during == during and done_bytes >= fault.after_bytes:
                    self._waiting.remove(fault)
                    return fault
        return None

    def clear(self) -> None:
        """Forget what has not happened yet."""
        with self._lock:
            self._waiting.clear()
