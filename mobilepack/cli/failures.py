"""How each failure is told: three lines on stderr or one JSON document, and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mobilepack.cli import render
from mobilepack.cli.app import DEBUG_VARIABLE
from mobilepack.errors import ExitCode, MobilepackError, near_misses


@dataclass(frozen=True, slots=True)
class Failure:
    """What is printed of a failure, and how the process ends."""

    code: str
    what: str
    why: str
    next: str
    exit_code: int


def report_failure(err: BaseException, arguments: Sequence[str]) -> int:
    """Print a failure as the arguments ask for it (`--json` or text) and return the exit code."""
    if isinstance(err, BrokenPipeError):
        return _closed_pipe()
    failure = describe(err)
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(err)
    if "--json" in arguments:
        render.document("error", render.plain(failure))
    else:
        show(failure)
    return int(failure.exit_code)


def show(failure: Failure) -> None:
    """Print a failure as text."""
    label = click.style(f"error[{failure.code}]", fg="red", bold=True)
    render.message(f"{label}: {failure.what}\n  why: {failure.why}\n  next: {failure.next}")


def describe(err: BaseException) -> Failure:
    """Return what to print of any exception that ended a command."""
    if isinstance(err, MobilepackError):
        return Failure(err.code, err.what, err.why, err.next, err.exit_code)
    if isinstance(err, click.Abort | KeyboardInterrupt):
        return Failure(
            "interrupted",
            "stopped before the end",
            "you interrupted it",
            "run the same command again; finished stages are not repeated",
            ExitCode.INTERRUPTED,
        )
    if isinstance(err, click.ClickException):
        return _describe_usage(err)
    if isinstance(err, MemoryError) or (isinstance(err, OSError) and err.errno in _MACHINE):
        return _describe_machine(err)
    return _describe_bug(err)


def _describe_usage(err: click.ClickException) -> Failure:
    context = err.ctx if isinstance(err, click.UsageError) else None
    path = context.command_path if context else "mobilepack"
    return Failure(
        "usage",
        f"cannot run `{path}` with these arguments",
        _why(err, context),
        f"run `{path} --help`",
        ExitCode.USAGE,
    )


def _why(err: click.ClickException, context: click.Context | None) -> str:
    """Return Click's message with the near miss of a misspelt verb, option or value."""
    if isinstance(err, click.NoSuchOption) and context is not None:
        options = [name for param in context.command.params for name in param.opts]
        allowed = [name for name in [*options, "--help"] if name.startswith("--")]
        return f"there is no option {err.option_name}; {near_misses(err.option_name, allowed)}"
    bad = getattr(err, "command_name", None)  # NoSuchCommand; older Clicks lack the class
    if bad and isinstance(context, click.Context) and isinstance(context.command, click.Group):
        verbs = context.command.list_commands(context)
        return f"there is no verb {bad!r}; {near_misses(bad, verbs)}"
    return " ".join(err.format_message().split()).rstrip(".")


_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
}


def _describe_machine(err: BaseException) -> Failure:
    """Describe a limit of the machine that no verb handled where it happened."""
    if isinstance(err, MemoryError):
        why, what_next = "memory ran out", "close other programs, or choose a smaller model"
    else:
        why, what_next = str(err), "free space or correct the permissions, and run it again"
    return Failure(
        "machine", "the machine refused an operation", why, what_next, ExitCode.BUILD_FAILED
    )


def _describe_bug(err: BaseException) -> Failure:
    cause = traceback.format_exception_only(err)[-1].strip()
    return Failure(
        "bug",
        "mobilepack failed in a way that nobody foresaw",
        cause,
        f"report it with the log {_write_log(err)}; {DEBUG_VARIABLE}=1 prints the traceback",
        ExitCode.BUG,
    )


def _write_log(err: BaseException) -> str:
    """Keep the traceback in a file of its own and return its path."""
    text = "".join(traceback.format_exception(err))
    command = " ".join(sys.argv)
    handle, name = tempfile.mkstemp(prefix="mobilepack-bug-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"$ {command}\n{text}")
    return str(Path(name))


def _closed_pipe() -> int:
    """End quietly when the reader of stdout is gone (`mobilepack targets | head -1`)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # or the interpreter complains while it exits
    return 128 + 13  # what a shell reports of a program that SIGPIPE ended
