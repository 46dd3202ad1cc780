"""Whether Qualcomm's libraries work with the installed ExecuTorch: tried in a child process.

`python -m mobilepack.backends.qnn.probe SOC` creates a device for a SoC and says `ready`. The
answer about one SDK is kept in the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import sys
from pathlib import Path

from mobilepack.backends.qnn.field_errors import cause_of
from mobilepack.backends.qnn.options import Options
from mobilepack.backends.qnn.sdk import PACKAGE, PACKAGE_VERSION, QNN_VERSION, Sdk, find_sdk
from mobilepack.cache import cache_folder
from mobilepack.errors import MissingError, MobilepackError, UsageError
from mobilepack.process import run

PROBE = (sys.executable, "-P", "-m", "mobilepack.backends.qnn.probe")
TIMEOUT_S = 180.0
"""Importing torch and the QNN backend takes 4 s here, from a cold, slow disk a minute."""

READY = "ready"


def usable_sdk(own: Path | None = None, probe: tuple[str, ...] = PROBE) -> Sdk:
    """Return the SDK to use, after a device has been created with it once.

    Args:
        own: Folder of the user's own SDK.
        probe: Command of the child; tests bring one that fails.

    Raises:
        MissingError: There is none, or it does not work here.
        UsageError: The user's own is no SDK, or its ABI is not the one that ExecuTorch speaks.
    """
    sdk = find_sdk(own)
    kept = _kept(sdk)
    if kept.is_file():
        return sdk
    problem = problem_of(sdk, probe)
    if problem is not None:
        raise problem
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(READY)
    return sdk


def problem_of(sdk: Sdk, probe: tuple[str, ...] = PROBE) -> MobilepackError | None:
    """Create a device in a child process; return why it cannot be, None if it can."""
    done = run([*probe, "SM8650"], timeout_s=TIMEOUT_S, env=sdk.environment())
    if done.returncode == 0 and done.stdout.split()[-1:] == [READY]:
        return None
    said = done.stderr + done.stdout
    cause = cause_of(said)
    lines = [line for line in said.splitlines() if line.strip()]
    why = f"creating a device ended with {done.ending}: " + (lines[-1].strip() if lines else "")
    if cause is not None:
        why = f"{cause.cause} ({cause.quote})"
    if sdk.origin == "user":
        return UsageError(
            "qnn-sdk-abi",
            f"cannot use the QAIRT SDK {sdk.version} at {sdk.root}",
            why=why,
            next=f"use the one of {PACKAGE} {PACKAGE_VERSION} (QNN {QNN_VERSION}): leave"
            " --qnn-sdk out and unset QNN_SDK_ROOT",
        )
    return MissingError(
        "qnn-device",
        f"Qualcomm's libraries {sdk.version} do not start here",
        why=why,
        next=f"pip install --force-reinstall --no-deps {PACKAGE}=={PACKAGE_VERSION} executorch",
    )


def _kept(sdk: Sdk) -> Path:
    """Return the file that stands for a probe that went well."""
    library = sdk.libraries / "libQnnHtp.so"
    state = library.stat()
    executorch = importlib.metadata.version("executorch")
    key = f"{library.resolve()} {state.st_size} {state.st_mtime_ns} {executorch}"
    return cache_folder("qnn") / f"works-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def main(argv: list[str]) -> int:
    """Create a device and say `ready`."""
    from mobilepack.backends.qnn.contexts import Compiler

    with Compiler(Options(argv[0], half=True)):
        pass
    sys.stdout.write(f"\n{READY}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
