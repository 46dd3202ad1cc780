"""How Apple's tools end a command that they cannot carry out."""

from __future__ import annotations

SIM_ERROR = "com.apple.CoreSimulator.SimError"
LAUNCH_ERROR = "FBSOpenApplicationServiceErrorDomain"
POSIX_ERROR = "NSPOSIXErrorDomain"
WRONG_STATE = 149
USAGE = 64
NO_UTILITY = 72


class EndError(Exception):
    """Ends the command.

    Attributes:
        status: Exit status.
        text: What goes to stderr.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def refused(status: int, domain: str, code: int, text: str) -> EndError:
    """Return simctl's way to say that a command failed."""
    head = f"An error was encountered processing the command (domain={domain}, code={code}):"
    return EndError(status, f"{head}\n{text}")
