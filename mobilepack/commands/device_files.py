"""device-files: what a phone needs beside a package, and whether a folder or archive has it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mobilepack.backends.qnn.device_files import (
    APP_ARTEFACT,
    NATIVE_LIBRARY,
    RUNTIME_ARTEFACT,
    DeviceFile,
    FoundFile,
    look_for,
    needed_files,
    runtime_release,
    take,
)
from mobilepack.backends.qnn.sdk import QNN_VERSION
from mobilepack.contract.package import open_package
from mobilepack.errors import UsageError
from mobilepack.soc import Soc, load_soc
from mobilepack.target import load_target


@dataclass(frozen=True, slots=True)
class DeviceFilesOptions:
    """Options of `mobilepack device-files`.

    Attributes:
        package: Whose program it is for; None for what the target would build.
        target: Without a package.
        soc_model: Instead of the package's or target's.
        source: QAIRT SDK or AAR to look into.
        out: Where the files found are copied; None to look only.
    """

    package: Path | None = None
    target: str = "qnn"
    soc_model: str | None = None
    source: Path | None = None
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class DeviceFiles:
    """What a phone needs.

    Attributes:
        compiled: Version that compiled the program; the runtime's must not be older.
        artefacts: Maven coordinates with versions.
        found: What the source has; empty without one.
        written: Files that were copied.
    """

    soc: Soc
    compiled: str
    files: tuple[DeviceFile, ...]
    artefacts: tuple[str, ...]
    environment: dict[str, str]
    native_library: str
    found: tuple[FoundFile, ...] = ()
    written: tuple[Path, ...] = ()


def device_files(options: DeviceFilesOptions) -> DeviceFiles:
    """List, check and copy what a phone needs.

    Raises:
        UsageError: The target or package needs no such files, or the source cannot be read.
        MissingError: There is no package, or (with `out`) the source lacks a library.
    """
    soc, compiled = _wanted(options)
    found: tuple[FoundFile, ...] = ()
    written: tuple[Path, ...] = ()
    if options.source is not None:
        found = look_for(options.source, soc, compiled)
        if options.out is not None:
            written = take(options.source, found, options.out)
    elif options.out is not None:
        raise UsageError(
            "no-source",
            "there is nothing to copy from",
            why="-o says where libraries go, and --from says where they are",
            next="name a QAIRT SDK's folder or an AAR with --from",
        )
    app = f"{APP_ARTEFACT}:{metadata.version('executorch')}"
    runtime = f"{RUNTIME_ARTEFACT}:{runtime_release(compiled)}"
    return DeviceFiles(
        soc=soc,
        compiled=compiled,
        files=needed_files(soc),
        artefacts=(app, runtime),
        environment={"LD_LIBRARY_PATH": ".", "ADSP_LIBRARY_PATH": "."},
        native_library=NATIVE_LIBRARY,
        found=found,
        written=written,
    )


def _wanted(options: DeviceFilesOptions) -> tuple[Soc, str]:
    """Return the chip, and the version that compiles for it."""
    if options.package is not None:
        manifest = open_package(options.package).manifest
        model, compiled = manifest.plan.soc_model, manifest.runtime_version
        name = manifest.plan.target
    else:
        model, compiled, name = load_target(options.target).soc_model, QNN_VERSION, options.target
    if model is None or compiled is None:
        raise UsageError(
            "no-device-files",
            f"a phone needs no files for {name} beside the package",
            why="its delegate is part of ExecuTorch",
            next="name a package or target of qnn",
        )
    return load_soc(options.soc_model or model), compiled
