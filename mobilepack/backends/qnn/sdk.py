"""Qualcomm's libraries: where they are, which version they are, and whether they work here.

They come with the PyPI package `onnxruntime-qnn`. ExecuTorch wants them in the folders of a QAIRT
SDK, which are laid out in the user's cache with links; nothing is copied or downloaded. An SDK of
the user's own is taken as it is. Nothing here loads a library: whoever does runs in a child
process with `Sdk.environment`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import mmap
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilepack.cache import cache_folder
from mobilepack.errors import MissingError, UsageError
from mobilepack.process import child_env

PACKAGE = "onnxruntime-qnn"
PACKAGE_VERSION = "2.5.0"
"""The only release whose ABI ExecuTorch 1.5.1 fits: it passes the device configuration's `socModel`
at byte 4, and 2.3.0, 2.4.0, 2.6.0 and 2.7.0 read it at byte 8 (device init fails with 14001)."""

QNN_VERSION = "2.49.40"
"""What that release holds, as its libQnnHtp.so says (`AISW_VERSION`)."""

VARIABLE = "QNN_SDK_ROOT"
EXTRA = "install it beside mobilepack: pip install 'mobilepack[qnn]'"
HOST = "x86_64-linux-clang"
LIBRARIES = ("libQnnHtp.so", "libHtpPrepare.so", "libQnnSystem.so", "libQnnIr.so", "libQnnSaver.so")
"""What lowering and the emulator load (executorch 1.5.1)."""

_REQUIRED = ("libQnnHtp.so", "libQnnSystem.so")
_BUNDLED = "onnxruntime_qnn.libs"  # libc++ and libunwind; the rpath is `$ORIGIN/../<this>`
_VERSION = re.compile(rb"AISW_VERSION: (\d+\.\d+\.\d+)|v(\d+\.\d+\.\d+)\.\d{12}")

Origin = Literal["package", "user"]


@dataclass(frozen=True, slots=True)
class Sdk:
    """Qualcomm's libraries in the folders of an SDK.

    Attributes:
        root: What `QNN_SDK_ROOT` is set to.
        version: As `2.49.40`.
        origin: `package` (from PyPI, laid out by us) or `user`.
    """

    root: Path
    version: str
    origin: Origin

    @property
    def libraries(self) -> Path:
        """Folder of the libraries for this machine."""
        return self.root / "lib" / HOST

    def environment(self) -> Mapping[str, str]:
        """Return the environment of a Python child that loads the libraries."""
        env = child_env()
        paths = (str(self.libraries), env.get("LD_LIBRARY_PATH", ""))
        env["LD_LIBRARY_PATH"] = os.pathsep.join(path for path in paths if path)
        env[VARIABLE] = str(self.root)
        return env


def find_sdk(own: Path | None = None) -> Sdk:
    """Return the SDK to use: the one named, `$QNN_SDK_ROOT`, or the package's.

    Raises:
        MissingError: This machine has no Qualcomm libraries, or cannot run them.
        UsageError: The folder named is no SDK.
    """
    check_machine()
    named = own or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    return _own(named.expanduser().absolute()) if named else _packaged()


def check_machine() -> None:
    """Refuse machines for which Qualcomm publishes no such libraries.

    Raises:
        MissingError: This is not x86-64 Linux.
    """
    if sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64"):
        return
    raise MissingError(
        "qnn-machine",
        "cannot build or verify for QNN on this machine",
        why=f"the libraries of {PACKAGE} {PACKAGE_VERSION} that ExecuTorch can use are for x86-64"
        f" Linux, and this is {platform.machine()} {platform.system()}",
        next="use an x86-64 Linux machine or container; the package it builds runs on the phone",
    )


def _own(root: Path) -> Sdk:
    absent = [name for name in _REQUIRED if not (root / "lib" / HOST / name).is_file()]
    if absent:
        raise UsageError(
            "not-a-qnn-sdk",
            f"{root} is not a QAIRT SDK for this machine",
            why=f"lib/{HOST}/ lacks {', '.join(absent)}",
            next=f"name the folder that holds lib/{HOST}, or leave --qnn-sdk and {VARIABLE} out",
        )
    return Sdk(root, library_version(root / "lib" / HOST / "libQnnHtp.so"), "user")


def _packaged() -> Sdk:
    folder = package_folder()
    absent = [name for name in LIBRARIES if not (folder / name).is_file()]
    if absent:
        raise MissingError(
            "qnn-incomplete",
            f"the installed {PACKAGE} is not whole",
            why=f"{folder} lacks {', '.join(absent)}",
            next=f"pip install --force-reinstall --no-deps {PACKAGE}=={PACKAGE_VERSION}",
        )
    return Sdk(lay_out(folder), library_version(folder / "libQnnHtp.so"), "package")


def package_folder() -> Path:
    """Return the folder of the installed package's libraries, without importing it.

    Raises:
        MissingError: It is not installed, or in a version that ExecuTorch cannot use.
    """
    try:
        found = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise MissingError(
            "no-qnn-libraries",
            "cannot find Qualcomm's libraries",
            why=f"{PACKAGE} is not installed, and {VARIABLE} is not set",
            next=EXTRA,
        ) from None
    if found.version != PACKAGE_VERSION:
        raise MissingError(
            "qnn-version",
            f"cannot use {PACKAGE} {found.version}",
            why=f"ExecuTorch 1.5.1 passes its device configuration as {PACKAGE_VERSION} (QNN"
            f" {QNN_VERSION}) reads it; other releases refuse it with error 14001",
            next=f"pip install {PACKAGE}=={PACKAGE_VERSION}",
        )
    return Path(str(found.locate_file("onnxruntime_qnn")))


def lay_out(folder: Path) -> Path:
    """Return an SDK-shaped folder in the user's cache that links to a package's libraries.

    It is made aside and renamed, so a reader finds it whole or not at all; several processes may
    do this at once. A folder whose links lead elsewhere (an environment was moved) is made again.

    Raises:
        MissingError: The cache cannot be written.
    """
    links = _links(folder)
    name = hashlib.sha256("\n".join(map(str, links.items())).encode()).hexdigest()[:16]
    root = cache_folder("qnn") / f"sdk-{PACKAGE_VERSION}-{name}"
    if _is_whole(root, links):
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
        for place, goal in links.items():
            (made / place).parent.mkdir(parents=True, exist_ok=True)
            (made / place).symlink_to(goal)
        _put(made, root, links)
    except OSError as err:
        raise MissingError(
            "qnn-cache",
            f"cannot lay out Qualcomm's libraries in {root.parent}",
            why=str(err),
            next="correct the folder's permissions, or set MOBILEPACK_CACHE to another",
        ) from err
    return root


def _links(folder: Path) -> dict[str, Path]:
    """Return what links to what."""
    links = {f"lib/{HOST}/{name}": folder / name for name in LIBRARIES}
    return links | {f"lib/{_BUNDLED}": folder.with_name(_BUNDLED)}


def _is_whole(root: Path, links: Mapping[str, Path]) -> bool:
    return all((root / p).is_symlink() and (root / p).readlink() == g for p, g in links.items())


def _put(made: Path, root: Path, links: Mapping[str, Path]) -> None:
    """Rename a finished folder to its place; a process that was faster made the same."""
    try:
        made.rename(root)
    except OSError:
        if _is_whole(root, links):
            shutil.rmtree(made)
            return
        broken = Path(tempfile.mkdtemp(dir=root.parent, prefix=".old.")) / root.name
        root.rename(broken)
        made.rename(root)
        shutil.rmtree(broken.parent)


def library_version(library: Path) -> str:
    """Return the version that a library says it is, as `2.49.40`.

    Raises:
        UsageError: It cannot be read or says none.
    """
    try:
        with (
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            found = _VERSION.search(data)
            version = (found[1] or found[2]).decode() if found else ""  # while it is mapped
    except (OSError, ValueError) as err:
        raise _unversioned(library, str(err)) from err
    if not version:
        raise _unversioned(library, "it holds no version of QNN")
    return version


def _unversioned(library: Path, why: str) -> UsageError:
    return UsageError(
        "no-qnn-version",
        f"cannot tell the version of {library}",
        why=why,
        next="name a library of Qualcomm's SDK (QAIRT), whole and for one platform",
    )


def version_tuple(version: str) -> tuple[int, ...]:
    """Return a version as numbers to compare."""
    return tuple(int(part) for part in version.split("."))
