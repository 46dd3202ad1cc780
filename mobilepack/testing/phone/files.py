"""adb's file service as a device speaks it (AOSP packages/modules/adb, SYNC.TXT and file_sync)."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import Protocol

from mobilepack.testing.phone.faults import Phase
from mobilepack.testing.phone.wire import Stream

_CHUNK = 64 * 1024
_HEAD = struct.Struct("<4sI")


class Disk(Protocol):
    """What the file service needs of the phone."""

    def path(self, remote: str) -> Path:
        """Return where a path of the phone is on this machine."""

    def charge(self, count: int) -> None:
        """Take space; OSError(ENOSPC) when there is none."""

    async def happen(self, during: Phase, done_bytes: int) -> None:
        """Let a fault happen whose moment this is; ConnectionError ends the transfer."""


async def serve_files(stream: Stream, disk: Disk) -> None:
    """Serve stat, list, send and receive until the client says QUIT."""
    while True:
        head: tuple[bytes, int] = _HEAD.unpack(await stream.read(_HEAD.size))
        name = head[0]
        if name == b"QUIT":
            return
        argument = (await stream.read(head[1])).decode("utf-8", "surrogateescape")
        try:
            if name in (b"STAT", b"STA2", b"LST2"):
                await _stat(stream, name, disk, argument)
            elif name == b"LIST":
                await _list(stream, disk.path(argument))
            elif name == b"SEND":
                await _receive(stream, disk, argument)
            elif name == b"RECV":
                await _send(stream, disk, argument)
            else:
                await _fail(stream, f"unknown command {name!r}")
                return
        except OSError as err:
            if isinstance(err, ConnectionError):
                raise
            await _fail(stream, f"{err.strerror}")


async def _fail(stream: Stream, why: str) -> None:
    await stream.write(_HEAD.pack(b"FAIL", len(why.encode())) + why.encode())


async def _stat(stream: Stream, name: bytes, disk: Disk, argument: str) -> None:
    try:
        path = disk.path(argument)
        found = path.stat() if name == b"STA2" else path.lstat()
        error = 0
    except OSError as err:
        found, error = None, err.errno or 0
    if name == b"STAT":
        values = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)) if found else ()
        await stream.write(struct.pack("<4s3I", b"STAT", *(values or (0, 0, 0))))
        return
    fields: tuple[int, ...] = (0,) * 10
    if found:
        owner = (found.st_nlink, found.st_uid, found.st_gid)
        times = (int(found.st_atime), int(found.st_mtime), int(found.st_ctime))
        fields = (found.st_dev, found.st_ino, found.st_mode, *owner, found.st_size, *times)
    await stream.write(struct.pack("<4sI2Q4IQ3q", name, error, *fields))


async def _list(stream: Stream, folder: Path) -> None:
    with contextlib.suppress(NotADirectoryError, FileNotFoundError):
        for entry in sorted(folder.iterdir()):
            found, name = entry.lstat(), os.fsencode(entry.name)
            values = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime), len(name))
            await stream.write(struct.pack("<4s4I", b"DENT", *values) + name)
    await stream.write(struct.pack("<4s4I", b"DONE", 0, 0, 0, 0))


async def _receive(stream: Stream, disk: Disk, argument: str) -> None:
    """Write a file that the host pushes; a write that fails is told at the end, as adbd does."""
    name, _, mode = argument.rpartition(",")
    path, why, total = disk.path(name), "", 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while True:
            head: tuple[bytes, int] = _HEAD.unpack(await stream.read(_HEAD.size))
            if head[0] == b"DONE":
                break
            data = await stream.read(head[1])
            total += len(data)
            await disk.happen("push", total)
            try:
                disk.charge(len(data))
                file.write(data)
            except OSError as err:
                why = why or f"write failed: {err.strerror}"
    if why:
        path.unlink()
        await _fail(stream, why)
        return
    path.chmod(int(mode) & 0o777)
    await stream.write(_HEAD.pack(b"OKAY", 0))


async def _send(stream: Stream, disk: Disk, name: str) -> None:
    """Send a file that the host pulls."""
    total = 0
    with disk.path(name).open("rb") as file:
        while data := file.read(_CHUNK):
            total += len(data)
            await disk.happen("pull", total)
            await stream.write(_HEAD.pack(b"DATA", len(data)) + data)
    await stream.write(_HEAD.pack(b"DONE", 0))
