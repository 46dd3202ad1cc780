"""What a phone needs beside a QNN program, and where it comes from.

The files are Qualcomm's and travel with nobody: they are listed, looked for in a QAIRT SDK or in
the AAR of `com.qualcomm.qti:qnn-runtime` that the user has, and taken from there.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mobilepack.backends.qnn.sdk import library_version
from mobilepack.backends.qnn.versions import is_new_enough
from mobilepack.errors import MissingError, UsageError
from mobilepack.soc import Soc

RUNTIME_ARTEFACT = "com.qualcomm.qti:qnn-runtime"
RUNTIME_VERSIONS = ("2.46.0", "2.47.0", "2.48.0", "2.49.0", "2.50.0")
"""Releases on Maven Central that public projects name (facts of this project, November 2026)."""

APP_ARTEFACT = "org.pytorch:executorch-android-qnn"
"""The app side; release 1.4.0 brings qnn-runtime 2.37.0 with it, which is too old for what is
compiled here, so an app names a newer one itself."""

NATIVE_LIBRARY = '<uses-native-library android:name="libcdsprpc.so" android:required="false"/>'

_LARGEST = 1 << 30  # bytes of one library; they have at most 100 MB


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """One library.

    Attributes:
        sdk: Its path in a QAIRT SDK.
        aar: Its path in the runtime's AAR.
        purpose: What it is for.
        optional: Programs that are compiled ahead of time run without it.
    """

    name: str
    sdk: str
    aar: str
    purpose: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A library and what was found of it.

    Attributes:
        bytes: 0 where it is missing.
        version: What it says it is; empty where it says nothing.
        problem: Why it will not do; empty if it will.
    """

    file: DeviceFile
    bytes: int
    version: str
    problem: str


def needed_files(soc: Soc) -> tuple[DeviceFile, ...]:
    """Return the libraries that a phone with a chip needs."""
    arch, stub, skel = soc.hexagon, "libQnnHtpV{}Stub.so", "libQnnHtpV{}Skel.so"
    rows = (
        ("libQnnHtp.so", "the NPU's backend, on the CPU's side", False),
        ("libQnnSystem.so", "reads the program's description", False),
        (stub.format(arch), f"talks to the NPU (Hexagon V{arch})", False),
        ("libQnnHtpPrepare.so", "compiles on the phone; programs of ours come compiled", True),
    )
    android = tuple(
        DeviceFile(name, f"lib/aarch64-android/{name}", f"jni/arm64-v8a/{name}", why, optional)
        for name, why, optional in rows
    )
    name = skel.format(arch)
    place = f"lib/hexagon-v{arch}/unsigned/{name}"
    return (*android, DeviceFile(name, place, f"jni/arm64-v8a/{name}", "runs on the NPU itself"))


def runtime_release(compiled: str) -> str:
    """Return the first known release of the runtime that is new enough for a program.

    Raises:
        MissingError: None is known.
    """
    for version in RUNTIME_VERSIONS:
        if is_new_enough(compiled, version):
            return version
    raise MissingError(
        "no-qnn-runtime",
        f"cannot name a release of {RUNTIME_ARTEFACT} for programs of QNN {compiled}",
        why=f"the newest that is known is {RUNTIME_VERSIONS[-1]}",
        next=f"look for {compiled} or newer on Maven Central, or take the QAIRT SDK's files",
    )


def look_for(source: Path, soc: Soc, compiled: str) -> tuple[FoundFile, ...]:
    """Look for every needed library in an SDK folder or an AAR, and check its version.

    Raises:
        UsageError: The source is neither.
    """
    return tuple(_found(source, file, compiled) for file in needed_files(soc))


def take(source: Path, found: tuple[FoundFile, ...], folder: Path) -> tuple[Path, ...]:
    """Copy the libraries that were found into a folder, flat; return their paths.

    Each is written aside and renamed, so that none is there in part.

    Raises:
        MissingError: A library that is needed is missing or too old; nothing is copied then.
    """
    wrong = [f"{item.file.name}: {item.problem}" for item in found if item.problem]
    if wrong:
        raise MissingError(
            "device-files",
            f"{source} does not hold what the phone needs",
            why="; ".join(wrong),
            next=f"take the QAIRT SDK's or {RUNTIME_ARTEFACT}'s files of the version named",
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for item in found:
        if item.bytes == 0:
            continue
        path = folder / item.file.name
        aside = folder / f".{item.file.name}.partial"
        with _opened(source, item.file) as stream, aside.open("wb") as out:
            shutil.copyfileobj(stream, out)
        aside.replace(path)
        written.append(path)
    return tuple(written)


def _found(source: Path, file: DeviceFile, compiled: str) -> FoundFile:
    import tempfile

    missing = "" if file.optional else "is missing"
    try:
        with _opened(source, file) as stream, tempfile.NamedTemporaryFile() as copy:
            shutil.copyfileobj(stream, copy)
            copy.flush()
            size = copy.tell()
            version = _version(Path(copy.name))
    except (FileNotFoundError, KeyError):
        return FoundFile(file, 0, "", missing)
    if version and not is_new_enough(compiled, version):
        return FoundFile(file, size, version, f"is {version}, older than {compiled} (error 5000)")
    return FoundFile(file, size, version, "")


def _version(library: Path) -> str:
    try:
        return library_version(library)
    except UsageError:
        return ""


@contextmanager
def _opened(source: Path, file: DeviceFile) -> Iterator[IO[bytes]]:
    """Open a library inside a source; the name is ours, so nothing outside can be reached."""
    if source.is_dir():
        with (source / file.sdk).open("rb") as stream:
            yield stream
        return
    try:
        with zipfile.ZipFile(source) as archive:
            info = archive.getinfo(file.aar)
            if info.file_size > _LARGEST:
                raise UsageError(
                    "device-files-archive",
                    f"will not unpack {file.aar} of {source}",
                    why=f"it says that it has {info.file_size:,} bytes",
                    next=f"take the AAR of {RUNTIME_ARTEFACT} from Maven Central",
                )
            with archive.open(info) as stream:
                yield stream
    except (OSError, zipfile.BadZipFile) as err:
        raise UsageError(
            "device-files-source",
            f"cannot read {source}",
            why=str(err),
            next=f"name a QAIRT SDK's folder or the AAR of {RUNTIME_ARTEFACT}",
        ) from err
