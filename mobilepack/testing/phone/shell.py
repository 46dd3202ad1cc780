"""adb's shell service, protocol 2 (AOSP packages/modules/adb, shell_protocol.h): no terminals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mobilepack.testing.phone.faults import Phase
from mobilepack.testing.phone.wire import Stream

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = 0, 1, 2, 3, 4
_HEAD = struct.Struct("<BI")
_CHUNK = 64 * 1024


class Machine(Protocol):
    """What the shell service needs of the phone."""

    def argv(self, command: str) -> Sequence[str]:
        """Return what runs a command line of the phone on this machine."""

    @property
    def env(self) -> Mapping[str, str]:
        """The whole environment of its programs."""

    def started(self, pid: int) -> None:
        """A process group began."""

    def is_runner(self, command: str) -> bool:
        """Whether a command line starts what faults during `run` are meant for."""

    async def happen(self, during: Phase, done_bytes: int, pid: int = 0) -> None:
        """Let a fault happen whose moment this is; ConnectionError ends the service."""


async def serve_shell(stream: Stream, machine: Machine, options: Sequence[str], line: str) -> None:
    """Run a command line; its output, and with protocol 2 its status, go to the stream."""
    second = "v2" in options
    process = await asyncio.create_subprocess_exec(
        *machine.argv(line),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if second else asyncio.subprocess.STDOUT,
        env=machine.env,
        cwd="/",
        start_new_session=True,
    )
    machine.started(process.pid)
    running = _Running(stream, machine, process, second, machine.is_runner(line))
    await running.follow()


class _Running:
    """One process whose pipes are joined to a stream."""

    def __init__(
        self,
        stream: Stream,
        machine: Machine,
        process: asyncio.subprocess.Process,
        second: bool,
        runner: bool,
    ) -> None:
        self._stream, self._machine, self._process = stream, machine, process
        self._second, self._runner = second, runner
        self._said = 0

    async def follow(self) -> None:
        process = self._process
        pumping = [
            asyncio.create_task(self._pump(pipe, channel))
            for pipe, channel in ((process.stdout, _STDOUT), (process.stderr, _STDERR))
        ]
        feeding = asyncio.create_task(self._feed())
        try:
            await asyncio.gather(*pumping)
            status = await process.wait()
            if self._second:
                # A shell's way to say by which signal its child ended.
                code = status if status >= 0 else 128 - status
                await self._stream.write(_HEAD.pack(_EXIT, 1) + bytes([code & 0xFF]))
        finally:
            for task in (feeding, *pumping):
                task.cancel()
            await asyncio.gather(feeding, *pumping, return_exceptions=True)
            await self._end()

    async def _end(self) -> None:
        """Hang up on a process that still runs, and see it and its pipes to their end."""
        if self._process.returncode is None:
            self._hang_up()
        for pipe in (self._process.stdout, self._process.stderr):
            while pipe is not None and await pipe.read(_CHUNK):
                pass
        await self._process.wait()

    def _hang_up(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGHUP)

    async def _pump(self, pipe: asyncio.StreamReader | None, channel: int) -> None:
        while pipe is not None and (data := await pipe.read(_CHUNK)):
            if channel == _STDOUT and self._runner:
                self._said += len(data)
                await self._machine.happen("run", self._said, self._process.pid)
            framed = _HEAD.pack(channel, len(data)) + data if self._second else data
            await self._stream.write(framed)

    async def _feed(self) -> None:
        """Feed stdin; when the client goes away, hang up on the process, as adbd does."""
        stdin = self._process.stdin
        try:
            while stdin is not None:
                head: tuple[int, int] = _HEAD.unpack(await self._stream.read(_HEAD.size))
                data = await self._stream.read(head[1])
                if head[0] == _STDIN:
                    stdin.write(data)
                    await stdin.drain()
                elif head[0] == _CLOSE_STDIN:
                    stdin.close()
        except (EOFError, ConnectionError):
            self._hang_up()


def last_of(pid: int) -> int:
    """Return the youngest descendant of a process: what a chain of shells has started."""
    while True:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        found = children.read_text().split() if children.is_file() else []
        if not found:
            return pid
        pid = int(found[-1])
