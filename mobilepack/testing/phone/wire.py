"""adb's transport as a device speaks it: packets, and streams with one packet in flight.

Source: AOSP packages/modules/adb, protocol.txt and adb.h (platform-tools 34): a header of six
little-endian words (command, two arguments, length, a sum of the bytes that this version of the
protocol leaves out, complement of the command).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Awaitable, Callable

VERSION, MAX_DATA = 0x01000001, 256 * 1024
_AUTH_TOKEN, _AUTH_SIGNATURE, _AUTH_KEY = 1, 2, 3
_PACE_S = 0.05
_WORDS = struct.Struct("<6I")


def _command(name: bytes) -> int:
    return int.from_bytes(name, "little")


CNXN, AUTH, OPEN = _command(b"CNXN"), _command(b"AUTH"), _command(b"OPEN")
OKAY, CLSE, WRTE = _command(b"OKAY"), _command(b"CLSE"), _command(b"WRTE")


class Stream:
    """One service's bytes; `read` ends with EOFError when the other side is gone."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.local, self.remote = local, remote
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.acknowledged = asyncio.Event()
        self.closed = False
        self._connection = connection
        self._rest = b""

    async def write(self, data: bytes) -> None:
        """Send bytes and wait until each packet of them has been taken."""
        for begin in range(0, len(data), self._connection.max_data):
            if self.closed:
                raise ConnectionResetError
            self.acknowledged.clear()
            part = data[begin : begin + self._connection.max_data]
            await self._connection.send(WRTE, self.local, self.remote, part)
            await self.acknowledged.wait()

    async def read(self, count: int) -> bytes:
        """Return so many bytes."""
        while len(self._rest) < count:
            part = await self.inbox.get()
            if not part:
                raise EOFError
            self._rest += part
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def end(self) -> None:
        """The other side is gone."""
        self.closed = True
        self.acknowledged.set()
        self.inbox.put_nowait(b"")

    async def close(self) -> None:
        """End it from this side."""
        if not self.closed:
            self.closed = True
            with contextlib.suppress(ConnectionError):
                await self._connection.send(CLSE, self.local, self.remote)


Serve = Callable[[Stream, str], Awaitable[None]]
"""Serves a stream to a destination such as `shell,v2,raw:ls`."""


class Connection:
    """One adb server's connection to the phone."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        banner: bytes,
        trust: str,
        bytes_per_s: float | None,
        serve: Serve,
    ) -> None:
        self.max_data = 4096
        self._reader, self._writer = reader, writer
        self._banner, self._trust, self._serve = banner, trust, serve
        self._bytes_per_s = bytes_per_s
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        self._online = False

    async def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        """Send one packet."""
        async with self._writing:
            words = (command, first, second, len(data), 0)
            self._writer.write(_WORDS.pack(*words, command ^ 0xFFFFFFFF) + data)
            await self._writer.drain()
        await self._pace(len(data))

    async def _pace(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + count / self._bytes_per_s if self._bytes_per_s else 0.0
        while loop.time() < until and not self._writer.is_closing():
            await asyncio.sleep(min(_PACE_S, until - loop.time()))

    async def run(self) -> None:
        """Answer packets until the connection ends, and its services with it."""
        try:
            while True:
                header = _WORDS.unpack(await self._reader.readexactly(_WORDS.size))
                data = await self._reader.readexactly(header[3])
                await self._pace(len(data))
                await self._answer(header[0], header[1], header[2], data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for stream in self._streams.values():
                stream.end()
            self.cut()
            if self._tasks:  # a loop that stops before them leaves their pipes open
                await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Break it without a word."""
        transport = self._writer.transport
        transport.abort()

    async def _answer(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN:
            self.max_data = min(second, MAX_DATA)
            await self._greet()
        elif command == AUTH and first == _AUTH_SIGNATURE:
            await self.send(AUTH, _AUTH_TOKEN, 0, os.urandom(20))  # a key that we do not know
        elif not self._online or command == AUTH:
            return
        elif command == OPEN:
            self._open(first, data.rstrip(b"\0").decode("utf-8", "surrogateescape"))
        else:
            await self._talk(command, first, second, data)

    async def _greet(self) -> None:
        if self._trust == "yes":
            self._online = True
            await self.send(CNXN, VERSION, MAX_DATA, self._banner)
        elif self._trust == "no":
            await self.send(AUTH, _AUTH_TOKEN, 0, os.urandom(20))

    async def _talk(self, command: int, first: int, second: int, data: bytes) -> None:
        stream = self._streams.get(second)
        if stream is None:
            if command == WRTE:
                await self.send(CLSE, 0, first)
        elif command == OKAY:
            stream.remote = first
            stream.acknowledged.set()
        elif command == WRTE:
            stream.inbox.put_nowait(data)
            await self.send(OKAY, stream.local, stream.remote)
        elif command == CLSE:
            del self._streams[second]
            stream.end()
            await self.send(CLSE, stream.local, stream.remote)  # adbd answers it with its own

    def _open(self, remote: int, destination: str) -> None:
        stream = Stream(self, self._next, remote)
        self._streams[self._next] = stream
        self._next += 1
        task = asyncio.get_running_loop().create_task(self._served(stream, destination))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _served(self, stream: Stream, destination: str) -> None:
        try:
            known = destination.partition(":")[0].split(",")[0] in ("shell", "exec", "sync")
            if not known:
                await self.send(CLSE, 0, stream.remote)
                return
            await self.send(OKAY, stream.local, stream.remote)
            await self._serve(stream, destination)
        except (EOFError, ConnectionError):
            pass
        finally:
            await stream.close()
            self._streams.pop(stream.local, None)
