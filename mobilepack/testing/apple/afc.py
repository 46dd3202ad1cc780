"""Apple File Conduit, the phone's side: files of one folder, over an open connection.

Numbers are those that libimobiledevice documents in afc.h; little endian, 64 bits.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"CFA6LPAA"
_HEADER = struct.Struct("<8sQQQQ")  # magic, whole length, length without data, number, operation
_STATUS, _DATA, _OPENED = 0x01, 0x02, 0x0E
_OK, _NOT_FOUND, _UNKNOWN, _DENIED = 0, 8, 1, 10
_MODES = {1: "rb", 2: "r+b", 3: "wb", 4: "w+b", 5: "ab", 6: "a+b"}

Read = Callable[[int], bytes]
Write = Callable[[bytes], None]


class Afc:
    """Serves one connection."""

    def __init__(self, root: Path, read: Read, write: Write) -> None:
        """Make one.

        Args:
            root: What the client sees as `/`.
            read: Reads exactly so many bytes; EOFError at the end.
            write: Writes all bytes.
        """
        self._root = root.resolve()
        self._read = read
        self._write = write
        self._open: dict[int, BinaryIO] = {}
        self._number = 0
        self._operations: dict[int, Callable[[bytes, bytes], None]] = {
            0x03: self._list,
            0x08: self._remove,
            0x09: self._make_folder,
            0x0A: self._info,
            0x0B: self._device,
            0x0D: self._open_file,
            0x0F: self._read_file,
            0x10: self._write_file,
            0x14: self._close,
            0x18: self._rename,
            0x22: self._remove,
        }

    def serve(self) -> None:
        """Answer until the client goes."""
        try:
            while True:
                magic, whole, part, self._number, operation = _HEADER.unpack(self._read(40))
                if magic != _MAGIC:
                    return
                words, data = self._read(part - 40), self._read(whole - part)
                self._answer(operation, words, data)
        except EOFError:
            pass
        finally:
            for file in self._open.values():
                file.close()

    def _answer(self, operation: int, words: bytes, data: bytes) -> None:
        known = self._operations.get(operation)
        if known is None:
            self._status(_UNKNOWN)
            return
        try:
            known(words, data)
        except FileNotFoundError:
            self._status(_NOT_FOUND)
        except OSError:
            self._status(_DENIED)

    def _send(self, operation: int, words: bytes = b"", data: bytes = b"") -> None:
        part = 40 + len(words)
        head = _HEADER.pack(_MAGIC, part + len(data), part, self._number, operation)
        self._write(head + words + data)

    def _status(self, code: int) -> None:
        self._send(_STATUS, struct.pack("<Q", code))

    def _path(self, words: bytes) -> Path:
        name = words.split(b"\0")[0].decode().lstrip("/")
        path = (self._root / name).resolve()
        if not path.is_relative_to(self._root):
            raise PermissionError(name)
        return path

    def _list(self, words: bytes, data: bytes) -> None:
        names = [".", "..", *sorted(path.name for path in self._path(words).iterdir())]
        self._send(_DATA, data=b"".join(name.encode() + b"\0" for name in names))

    def _info(self, words: bytes, data: bytes) -> None:
        path = self._path(words)
        stat = path.stat()
        fields = {
            "st_size": stat.st_size,
            "st_blocks": stat.st_blocks,
            "st_nlink": stat.st_nlink,
            "st_ifmt": "S_IFDIR" if path.is_dir() else "S_IFREG",
            "st_mtime": stat.st_mtime_ns,
            "st_birthtime": stat.st_ctime_ns,
        }
        self._send(_DATA, data=b"".join(f"{k}\0{v}\0".encode() for k, v in fields.items()))

    def _device(self, words: bytes, data: bytes) -> None:
        usage = shutil.disk_usage(self._root)
        fields = {"Model": "iPhone16,1", "FSTotalBytes": usage.total, "FSFreeBytes": usage.free}
        self._send(_DATA, data=b"".join(f"{k}\0{v}\0".encode() for k, v in fields.items()))

    def _make_folder(self, words: bytes, data: bytes) -> None:
        self._path(words).mkdir(parents=True, exist_ok=True)
        self._status(_OK)

    def _remove(self, words: bytes, data: bytes) -> None:
        path = self._path(words)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        self._status(_OK)

    def _rename(self, words: bytes, data: bytes) -> None:
        before, after = words.split(b"\0")[:2]
        self._path(before).rename(self._path(after))
        self._status(_OK)

    def _open_file(self, words: bytes, data: bytes) -> None:
        (mode,) = struct.unpack("<Q", words[:8])
        handle = len(self._open) + 1
        self._open[handle] = self._path(words[8:]).open(_MODES[mode])  # type: ignore[assignment]
        self._send(_OPENED, struct.pack("<Q", handle))

    def _read_file(self, words: bytes, data: bytes) -> None:
        handle, size = struct.unpack("<QQ", words[:16])
        self._send(_DATA, data=self._open[handle].read(size))

    def _write_file(self, words: bytes, data: bytes) -> None:
        (handle,) = struct.unpack("<Q", words[:8])
        self._open[handle].write(data)
        self._status(_OK)

    def _close(self, words: bytes, data: bytes) -> None:
        (handle,) = struct.unpack("<Q", words[:8])
        self._open[handle].close()
        self._status(_OK)
