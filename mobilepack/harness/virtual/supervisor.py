"""The process behind one virtual phone: `python -m mobilepack.harness.virtual.supervisor …`.

Without root and without a change to the host, it makes user, mount, process and network namespaces
of its own, tells the kernel there to run 64-bit ARM programs with qemu (binfmt_misc belongs to a
user namespace since Linux 6.7), and starts the real adbd in the phone's root. The phone has no
network but a loopback of its own; a relay through a socket file joins its adb port to one port of
this machine's loopback.

System calls are made through ctypes: Python 3.11 has no `os.unshare` and none has `mount`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ADB_PORT = 5555

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_CLONE_NEWPID, _CLONE_NEWNET = 0x20000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_PR_SET_PDEATHSIG = 1
# ELF, 64 bit, little endian, EM_AARCH64; `F` opens the emulator now, so that a chroot needs none.
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_PATH = "/system/bin:/usr/bin:/bin:/usr/sbin"


def main(argv: list[str]) -> int:
    """Run a phone until it or this process ends.

    Args:
        argv: Root, host tools, emulator, adbd, CPU, port of this machine, lock file.
    """
    root, tools, emulator, adbd, cpu, port, lock = argv
    with Path(lock).open("a+") as held, tempfile.TemporaryDirectory(prefix="mobilepack-") as short:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held while this process lives
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        socket_file = str(Path(short) / "adbd")  # a socket's path has at most 107 bytes
        phone = os.fork()
        if phone == 0:
            _child(lambda: _enter(Path(root), tools, emulator, adbd, cpu, socket_file))
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(_serve_until_ended(("127.0.0.1", int(port)), socket_file, phone))
    return 0


def _child(work: Callable[[], None]) -> None:
    """Run in a forked child and never return; it dies with its parent."""
    try:
        _check(_libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        work()
        os._exit(0)
    except BaseException as err:
        sys.stderr.write(f"virtual phone: {type(err).__name__}: {err}\n")
        sys.stderr.flush()
        os._exit(1)


def _enter(root: Path, tools: str, emulator: str, adbd: str, cpu: str, socket_file: str) -> None:
    uid, gid = os.getuid(), os.getgid()
    everything = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET
    _check(_libc().unshare(everything), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    first = os.fork()  # process 1 of the new namespace: everything in it ends with it
    if first == 0:
        _child(lambda: _become_phone(root, tools, emulator, adbd, cpu, socket_file))
    os.waitpid(first, 0)


def _become_phone(
    root: Path, tools: str, emulator: str, adbd: str, cpu: str, socket_file: str
) -> None:
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc", 0)
    _mount("binfmt_misc", "/proc/sys/fs/binfmt_misc", "binfmt_misc", 0)
    rule = f":mobilepack-aarch64:M::{_MAGIC}:{_MASK}:{emulator}:F"
    Path("/proc/sys/fs/binfmt_misc/register").write_text(rule)
    _loopback_up()
    for name in ("dev", "sys"):
        _mount(f"/{name}", str(root / name), None, _MS_BIND | _MS_REC)
    _mount("proc", str(root / "proc"), "proc", 0)
    _mount(tools, str(root / "host"), None, _MS_BIND)
    if os.fork() == 0:
        _child(lambda: asyncio.run(_relay(socket_file, ("127.0.0.1", ADB_PORT))))
    os.chroot(root)
    os.chdir("/")
    environment = {"QEMU_CPU": cpu, "PATH": _PATH, "HOME": "/", "ADBD_PORT": str(ADB_PORT)}
    os.execve(adbd, [adbd], environment)  # noqa: S606 - no shell, fixed program


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


async def _serve_until_ended(address: tuple[str, int], socket_file: str, phone: int) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: _join(reader, writer, socket_file), *address
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: os.kill(phone, signal.SIGKILL))
    async with server:
        await asyncio.to_thread(os.waitpid, phone, 0)


async def _relay(socket_file: str, address: tuple[str, int]) -> None:
    server = await asyncio.start_unix_server(
        lambda reader, writer: _join(reader, writer, address), socket_file
    )
    async with server:
        await server.serve_forever()


async def _join(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: str | tuple[str, int]
) -> None:
    try:
        if isinstance(to, str):
            far_reader, far_writer = await asyncio.open_unix_connection(to)
        else:
            far_reader, far_writer = await asyncio.open_connection(*to)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
    writer.close()


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    def raw(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    done = _libc().mount(raw(source), raw(target), raw(kind), ctypes.c_ulong(flags), None)
    _check(done, f"mount {kind or source} on {target}")


def _check(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
