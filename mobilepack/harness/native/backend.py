"""Which packages the native runner can run: asked before anything is compiled or pushed."""

from __future__ import annotations

from pathlib import Path

from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.errors import MissingError

# Their kernels and delegate are linked into the runner; "portable" is a program without a delegate.
_RUN = ("xnnpack", "portable")
_ELSEWHERE = {
    "qnn": "run it in the app (-d app:SERIAL), or here, in the HTP emulator (-d host)",
    "coreml": "run it here (-d host), in a simulator or on an iPhone (docs/devices/ios.md)",
    "onnx": "run it here (-d host); on a phone it is ONNX Runtime's",
}


def check_backend(package: Path) -> None:
    """Refuse a package whose delegate the runner does not have.

    Raises:
        MissingError: It is neither XNNPACK's nor without a delegate.
        UsageError: Its manifest cannot be read.
    """
    manifest = package / MANIFEST
    backend = Manifest.read(manifest).plan.backend if manifest.is_file() else "xnnpack"
    if backend not in _RUN:
        raise MissingError(
            "native-runner-backend",
            f"the native runner cannot run a {backend} package",
            why="it has ExecuTorch's XNNPACK delegate alone",
            next=_ELSEWHERE.get(backend, "run it where its delegate is"),
        )


def static_manifest(package: Path) -> Path | None:
    """Return the manifest if a program is called as it says; other programs need none.

    Raises:
        UsageError: It cannot be read.
    """
    path = package / MANIFEST
    return path if path.is_file() and Manifest.read(path).static is not None else None
