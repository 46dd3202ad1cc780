"""Packed weights in a file: the second load of a program does not pack its weights again.

Packing is nearly all of a load (Llama-3.2-1B: 2.4 of 2.5 s). ExecuTorch 1.5.1 can keep the packed
weights in a file, but its Python bindings do not pass the option on. So this module calls the C++
functions that the libraries export, and proves first that it found the right object: what
`set_option` writes must be what the object's own getter reads. Anything unexpected, another version
or another system, and the program is loaded as always.

A program may use it only if XNNPACK packs every named constant (`Placement.weight_cache`), for
ExecuTorch frees them after the load.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from mobilepack.cache import cache_folder
from mobilepack.harness import machine

FOLDER = "packed-weights"
KEEP_BYTES = 8 << 30
"""Older files are removed when all of them together are larger."""

_VERSION = "1.5.1"
_BACKEND = b"XnnpackBackend"
_ENABLED, _PATH = b"weight_cache_enabled", b"packed_cache_path"  # XNNPACKBackend.h
_OPTIONS_AT = 8  # bytes: `options_` is the backend's first member, after the table of virtuals
_STRING = "RKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
_OPTIONS = "_ZN10executorch8backends7xnnpack21XnnpackBackendOptions"
_SET_OPTION = "_ZN10executorch7runtime10set_optionEPKcNS0_4SpanINS0_13BackendOptionEEE"
_GET_BACKEND = "_ZN10executorch7runtime17get_backend_classEPKc"
_GET_PATH = _OPTIONS.replace("_ZN", "_ZNK") + "21get_packed_cache_pathB5cxx11Ev"
_GET_CACHE = _OPTIONS + "27get_or_create_weights_cacheE" + _STRING
_SET_PATH = (
    "_ZN10executorch8backends7xnnpack8delegate15XNNWeightsCache21set_packed_cache_pathE" + _STRING
)


class _Option(ctypes.Structure):
    """`executorch::runtime::BackendOption`: char[64], variant<bool, int, char[256]>."""

    _fields_ = (
        ("key", ctypes.c_char * 64),
        ("value", ctypes.c_char * 256),
        ("kind", ctypes.c_uint8),
        ("padding", ctypes.c_uint8 * 3),
    )


class _String(ctypes.Structure):
    """`std::string` of libstdc++ with its text outside itself."""

    _fields_ = (
        ("text", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("local", ctypes.c_char * 16),
    )


def file_of(program: str) -> Path:
    """Return where the packed weights of a program are kept on this machine.

    Args:
        program: sha256 (hex) of the program file: the cache itself only knows names of weights.
    """
    engine = f"executorch {importlib.metadata.version('executorch')} {machine.cpu_name()}"
    suffix = hashlib.sha256(engine.encode()).hexdigest()[:12]
    return cache_folder(FOLDER) / f"{program}-{suffix}.bin"


class WeightCache:
    """The cache file of one program; `enable` before its load, `outcome` after."""

    def __init__(self, library_folder: Path, program: str) -> None:
        """Name the file.

        Args:
            library_folder: ExecuTorch's `lib`; its libraries must be loaded already.
            program: As in `file_of`.
        """
        self.file = file_of(program)
        self._libraries = library_folder
        self._why_not = ""
        self._before: tuple[int, int] | None = None

    def enable(self) -> None:
        """Make the next load use and fill the file, where that is known to work."""
        self._why_not = _unsupported()
        if self._why_not:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            _make_room(self.file)
            _refuse_in_use(self.file)
            self._before = _stamp(self.file)
            _enable(self._libraries, os.fsencode(self.file))
        except (OSError, AttributeError, _MismatchError) as err:
            self._why_not = f"not used: {err}"

    def outcome(self) -> str:
        """Return what the load did: `used`, `written`, or why neither."""
        if self._why_not:
            return self._why_not
        after = _stamp(self.file)
        if after is None:
            return "not used: ExecuTorch could not write it"
        return "used" if after == self._before else "written"


def _refuse_in_use(file: Path) -> None:
    """Raise BlockingIOError while another process has the file: ExecuTorch locks it to its end."""
    if file.is_file():
        with file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _stamp(file: Path) -> tuple[int, int] | None:
    """Return length and time of change of a file; a load that uses it changes neither."""
    if not file.is_file():
        return None
    found = file.stat()
    return found.st_size, found.st_mtime_ns


class _MismatchError(Exception):
    """The library is not what this module was written for."""


def _unsupported() -> str:
    found = importlib.metadata.version("executorch")
    if found != _VERSION:
        return f"not used: known for executorch {_VERSION}, this is {found}"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"not used: known for Linux on x86-64, this is {sys.platform} {platform.machine()}"
    return ""


def _make_room(keep: Path) -> None:
    """Remove the files that were not used for longest until the rest is small enough."""
    files = sorted(keep.parent.glob("*.bin"), key=lambda p: p.stat().st_mtime, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > KEEP_BYTES and path != keep:
            with contextlib.suppress(OSError):
                path.unlink()
    if keep.is_file():
        os.utime(keep)


def _enable(folder: Path, path: bytes) -> None:
    runtime = ctypes.CDLL(str(folder / "libexecutorch.so"))
    xnnpack = ctypes.CDLL(str(folder / "libexecutorch_backend_xnnpack.so"))
    get_backend = _function(runtime, _GET_BACKEND, ctypes.c_void_p, ctypes.c_char_p)
    backend = get_backend(_BACKEND)
    if not backend:
        raise _MismatchError("ExecuTorch has no XNNPACK backend")
    options = backend + _OPTIONS_AT
    _set_option(runtime, _PATH, path)
    if _path_of(xnnpack, options) != path:
        raise _MismatchError("the backend's options are not where they were expected")
    _set_option(runtime, _ENABLED, True)
    # Its loader asks for the instance of the empty path unless a C++ caller names another.
    instance, empty = ctypes.create_string_buffer(64), _string(b"")
    get_cache = _function(xnnpack, _GET_CACHE, None, *[ctypes.c_void_p] * 3)
    get_cache(ctypes.addressof(instance), options, ctypes.addressof(empty))
    cache = int.from_bytes(instance.raw[:8], "little")
    set_path = _function(xnnpack, _SET_PATH, None, *[ctypes.c_void_p] * 2)
    name = _string(path)
    set_path(cache, ctypes.addressof(name))
    _ALIVE.extend((instance, name))


_ALIVE: list[object] = []
"""The backend only keeps weak references: what it gave us must live as long as the process."""


def _set_option(runtime: ctypes.CDLL, key: bytes, value: bytes | bool) -> None:
    if isinstance(value, bytes) and len(value) > 255:
        raise _MismatchError("the path of the cache is longer than 255 bytes")
    option = _Option(key=key, kind=0 if isinstance(value, bool) else 2)
    raw = bytes([value]) if isinstance(value, bool) else value + b"\0"
    ctypes.memmove(ctypes.addressof(option) + 64, raw, len(raw))
    set_option = _function(
        runtime, _SET_OPTION, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t
    )
    error = set_option(_BACKEND, ctypes.addressof(option), 1)
    if error:
        raise _MismatchError(f"ExecuTorch refused {key.decode()} (error {error:#x})")


def _path_of(xnnpack: ctypes.CDLL, options: int) -> bytes:
    """Ask the options for the path that was set."""
    found = _String()
    get_path = _function(xnnpack, _GET_PATH, None, *[ctypes.c_void_p] * 2)
    get_path(ctypes.addressof(found), options)
    return ctypes.string_at(found.text, found.length) if found.text else b""


def _string(text: bytes) -> _String:
    buffer = ctypes.create_string_buffer(text)
    made = _String(text=ctypes.addressof(buffer), length=len(text))
    _ALIVE.append(buffer)
    return made


def _function(library: ctypes.CDLL, symbol: str, result: Any, *arguments: Any) -> Any:
    function = library[symbol]
    function.restype, function.argtypes = result, arguments
    return function
