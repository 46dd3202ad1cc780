"""Failures that a user can cause or see, and the exit code of each."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Process exit codes; stable, documented in docs/reference/exit-codes.md."""

    OK = 0
    BUG = 1
    USAGE = 2
    CHECK_FAILED = 3
    BUILD_FAILED = 4
    MISSING = 5
    RUN_FAILED = 6
    INTERRUPTED = 130


class MobilepackError(Exception):
    """Say what could not be done, why, and what to do next.

    Attributes:
        code: Stable kebab-case identifier of the failure, for scripts.
        what: What could not be done, one sentence without a full stop.
        why: The observed cause; quotes the file, key or tool output.
        next: One command or edit that gets the user further.
        exit_code: How the process ends when nobody handles the error.
    """

    exit_code: ExitCode = ExitCode.USAGE

    def __init__(self, code: str, what: str, *, why: str, next: str) -> None:  # noqa: A002
        super().__init__(f"{what}: {why}")
        self.code = code
        self.what = what
        self.why = why
        self.next = next


class UsageError(MobilepackError):
    """An argument, configuration file or input file is wrong."""

    exit_code = ExitCode.USAGE


class CheckFailedError(MobilepackError):
    """A check ran and its result is outside its tolerance."""

    exit_code = ExitCode.CHECK_FAILED


class BuildError(MobilepackError):
    """A build stage could not produce its output."""

    exit_code = ExitCode.BUILD_FAILED


class MissingError(MobilepackError):
    """A tool, library, SDK, file or device that is needed is absent."""

    exit_code = ExitCode.MISSING


class RunFailedError(MobilepackError):
    """A program could not be run, or died while it ran."""

    exit_code = ExitCode.RUN_FAILED


def near_misses(name: str, allowed: list[str], limit: int = 3) -> str:
    """Return ``did you mean 'x'?`` for the closest allowed names, or the whole list.

    Args:
        name: What the user wrote.
        allowed: The names that would have been accepted.
        limit: How many near misses are named at most.
    """
    import difflib

    close = difflib.get_close_matches(name, allowed, n=limit, cutoff=0.55)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "choose from " + ", ".join(sorted(allowed))
