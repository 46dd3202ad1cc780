"""The rule of QNN's runtimes: at least as new as the libraries that compiled the program."""

from __future__ import annotations

from mobilepack.backends.qnn.sdk import version_tuple
from mobilepack.errors import RunFailedError


def is_new_enough(compiled: str, runtime: str) -> bool:
    """Whether a runtime can load what a version compiled."""
    return version_tuple(runtime) >= version_tuple(compiled)


def check_runtime(compiled: str | None, runtime: str, where: str) -> None:
    """Refuse a runtime that would end with error 5000.

    Raises:
        RunFailedError: It is older than the libraries that compiled the program.
    """
    if compiled is None or is_new_enough(compiled, runtime):
        return
    raise RunFailedError(
        "qnn-runtime-older",
        f"cannot run this program with QNN {runtime} of {where}",
        why=f"it was compiled by QNN {compiled}; an older runtime refuses it with error 5000",
        next=f"use com.qualcomm.qti:qnn-runtime of {compiled} or newer, or build with an older SDK",
    )
