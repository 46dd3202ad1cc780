"""One user of a device at a time, on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mobilepack.cache import cache_folder
from mobilepack.contract.base import Contract
from mobilepack.errors import MobilepackError, RunFailedError

BUSY = "device-busy"
"""Code of the error of one who found the device held: nothing of the run began."""

_POLL_S = 0.1
_GRACE_S = 0.5  # somebody may only be looking who holds it


class Holder(Contract):
    """Who holds a device.

    Attributes:
        purpose: What for: `verify`, `bench`.
        since_utc_s: Seconds since 1970, UTC.
    """

    serial: str
    pid: int
    user: str
    purpose: str
    since_utc_s: float

    @property
    def age_s(self) -> float:
        """For how long."""
        return max(0.0, time.time() - self.since_utc_s)

    def __str__(self) -> str:
        return f"{self.user}, process {self.pid}, {self.purpose}, for {self.age_s:.0f} s"


@contextlib.contextmanager
def leased(serial: str, purpose: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold a device; the kernel lets go of it when this process ends, however it ends.

    Args:
        serial: Of the device.
        purpose: Told to others who want it.
        wait_s: How long to wait for another holder.

    Raises:
        RunFailedError: Somebody else holds it, and who.
    """
    path = _path(serial)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        _take(file, serial, wait_s)
        me = Holder(
            serial=serial,
            pid=os.getpid(),
            user=getpass.getuser(),
            purpose=purpose,
            since_utc_s=time.time(),
        )
        file.truncate(0)
        file.write(me.to_json())
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder(serial: str) -> Holder | None:
    """Return who holds a device, None if nobody does."""
    path = _path(serial)
    if not path.is_file():
        return None
    with path.open("r+") as file:
        if _locked(file, fcntl.LOCK_SH):
            return _read(file)
    return None


def _take(file: IO[str], serial: str, wait_s: float) -> None:
    deadline = time.monotonic() + max(wait_s, _GRACE_S)
    while _locked(file, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            raise RunFailedError(
                BUSY,
                f"{serial} is in use",
                why=f"held by {_read(file) or 'somebody who is just starting'}",
                next="wait for it (--wait SECONDS), or choose another device: mobilepack devices",
            )
        time.sleep(_POLL_S)


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _read(file: IO[str]) -> Holder | None:
    file.seek(0)
    text = file.read()
    with contextlib.suppress(MobilepackError):
        return Holder.parse(text.encode(), "lease") if text else None
    return None


def _path(serial: str) -> Path:
    # A serial can hold colons and more; its digest is a name everywhere.
    return cache_folder("leases") / f"{hashlib.sha256(serial.encode()).hexdigest()[:24]}.json"
