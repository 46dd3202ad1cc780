"""The phone itself: a server in a thread, which adb connects to over TCP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

from mobilepack.testing.phone.disk import PhoneDisk
from mobilepack.testing.phone.faults import Fault, Faults, Link, Phase
from mobilepack.testing.phone.files import serve_files
from mobilepack.testing.phone.shell import last_of, serve_shell
from mobilepack.testing.phone.wire import Connection, Stream

_FEATURES = "shell_v2,cmd,stat_v2"
_RUNNER = "mobilepack_runner"
_START_S = 10.0


class FakePhone:
    """A phone on this machine's loopback; use it in a `with`.

    It is an x86_64 emulator by its properties, so the real native runner of this machine runs on
    it.
    """

    def __init__(
        self,
        properties: Mapping[str, str] | None = None,
        *,
        link: Link = Link(),  # noqa: B008 - frozen
        away_s: float = 0.5,
        memory_bytes: int | None = None,
        preload: Path | None = None,
    ) -> None:
        """Make one; nothing runs yet.

        Args:
            properties: Of `getprop`, over an emulator's own.
            link: How it is connected.
            away_s: How long a reboot takes.
            memory_bytes: Address space of a process; None for no limit.
            preload: A library that every program of the phone is started with.
        """
        self.disk = PhoneDisk(
            Path(tempfile.mkdtemp(prefix="mobilepack-phone-")) / "root", properties or {}
        )
        self.faults = Faults()
        self.link = link
        self.happened: list[Fault] = []
        self.commands: list[str] = []
        self._away_s = away_s
        self._memory_bytes = memory_bytes
        self._preload = preload
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._groups: set[int] = set()
        self._rebooting: asyncio.Task[None] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]

    @property
    def serial(self) -> str:
        """How adb calls it after `adb connect SERIAL`."""
        return f"127.0.0.1:{self._port}"

    @property
    def env(self) -> Mapping[str, str]:
        """The environment of its programs."""
        more = {"LD_PRELOAD": str(self._preload)} if self._preload else {}
        return self.disk.environment() | more

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen()).result(_START_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._end()).result(self._away_s + _START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_S)
        self._loop.close()
        self.disk.remove()
        self.disk.root.parent.rmdir()

    def cut(self) -> None:
        """Break every connection now; adb may connect again at once."""
        self._loop.call_soon_threadsafe(self._cut)

    def reboot(self) -> None:
        """Reboot now; return when it is back."""
        self._do(self._reboot()).result(self._away_s + _START_S)

    def _do(self, work: object) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        host, port = "127.0.0.1", self._port
        self._server = await asyncio.start_server(self._connected, host, port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        keys = ("ro.product.name", "ro.product.model", "ro.product.device")
        told = "".join(f"{key}={self.disk.properties[key]};" for key in keys)
        connection = Connection(
            reader,
            writer,
            banner=f"device::{told}features={_FEATURES}".encode(),
            trust=self.link.trust,
            bytes_per_s=self.link.bytes_per_s,
            serve=self._serve,
        )
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def _serve(self, stream: Stream, destination: str) -> None:
        kind, _, rest = destination.partition(":")
        name, *options = kind.split(",")
        if name == "sync":
            await serve_files(stream, self)
        else:
            self.commands.append(rest)
            await serve_shell(stream, self, options, rest)

    def argv(self, command: str) -> Sequence[str]:
        """Return what runs a command line."""
        limit = f"ulimit -v {self._memory_bytes // 1024}; " if self._memory_bytes else ""
        return ("/bin/sh", "-c", limit + self.disk.moved(command))

    def started(self, pid: int) -> None:
        """Remember what a reboot kills."""
        self._groups.add(pid)

    def is_runner(self, command: str) -> bool:
        """Whether a command line starts the native runner."""
        return f"/{_RUNNER}" in command

    def path(self, remote: str) -> Path:
        """Return where a path of the phone is."""
        return self.disk.path(remote)

    def charge(self, count: int) -> None:
        """Take space."""
        self.disk.charge(count)

    async def happen(self, during: Phase, done_bytes: int, pid: int = 0) -> None:
        """Let a fault happen whose moment this is.

        Raises:
            ConnectionError: It broke the connection.
        """
        fault = self.faults.due(during, done_bytes)
        if fault is None:
            return
        self.happened.append(fault)
        if fault.kind in ("kill", "hang"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(last_of(pid), signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP)
            return
        if fault.kind == "cut":
            self._cut()
        else:
            asyncio.get_running_loop().create_task(self._reboot())
        raise ConnectionResetError

    def _cut(self) -> None:
        for connection in tuple(self._connections):
            connection.cut()

    async def _reboot(self) -> None:
        await self._stop()
        self.disk.boot()
        await asyncio.sleep(self._away_s)
        await self._listen()

    async def _end(self) -> None:
        if self._rebooting is not None:
            await self._rebooting
        await self._stop()

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._cut()
        for pid in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._groups.clear()
        while self._connections:
            await asyncio.sleep(0.01)
