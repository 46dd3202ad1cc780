"""Writing down what Apple's tools answer on this Mac: what harnesses ask, and refusals."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mobilepack.harness.ios.faults import fault
from mobilepack.harness.ios.simulator import Simctl
from mobilepack.harness.ios.tool import Tool, xcode_version
from mobilepack.harness.ios.transcript import FILE, JSON_OPTION, Call, Scrubber, Transcript
from mobilepack.process import Finished

_LIMIT_S = 300.0
_NO_APP = "mobilepack.no-such-app"
_ASKED = (
    ("xcodebuild", "-version"),
    ("simctl", "list", "-j"),
    ("devicectl", "list", "devices", "--timeout", "10", JSON_OPTION, FILE),
    ("devicectl", "device", "process", "launch", "--device", "no-such-phone", _NO_APP),
    ("simctl", "boot", "00000000-0000-0000-0000-00000000dead"),
    ("simctl", "launch", "--no-such-option"),
)
"""Changes nothing on the machine."""

_CYCLE = (
    ("simctl", "bootstatus", "{udid}", "-b"),
    ("simctl", "bootstatus", "{udid}", "-b"),
    ("simctl", "boot", "{udid}"),
    ("simctl", "get_app_container", "{udid}", _NO_APP, "data"),
    ("simctl", "launch", "--console-pty", "--terminate-running-process", "{udid}", _NO_APP),
    ("simctl", "terminate", "{udid}", _NO_APP),
    ("simctl", "shutdown", "{udid}"),
    ("simctl", "shutdown", "{udid}"),
)
"""With a simulator of ours, from boot to shutdown, each refusal included."""

Tell = Callable[[str], None]


class Recorder:
    """Runs commands and keeps what came, scrubbed."""

    def __init__(self, xcrun: Tool, tell: Tell) -> None:
        """Begin.

        Args:
            xcrun: The tool.
            tell: Hears each command.
        """
        self._xcrun = xcrun
        self._tell = tell
        self._scrub = Scrubber()
        self.calls: list[Call] = []

    def call(self, *words: str) -> Finished:
        """Run one command and keep it; its failure is what we are here for."""
        self._tell(" ".join(words))
        with tempfile.TemporaryDirectory(prefix="mobilepack-ios-") as folder:
            path = Path(folder) / "result.json"
            given = [str(path) if word == FILE else word for word in words]
            done = self._xcrun.attempt(*given, timeout_s=_LIMIT_S)
            if done.timed_out:
                raise fault(done, "cannot record")
            wrote = path.read_text("utf-8") if path.is_file() else ""
        self.calls.append(
            Call(
                argv=self._scrub.argv(words),
                returncode=done.returncode,
                stdout=self._scrub.text(done.stdout),
                stderr=self._scrub.text(done.stderr.replace(folder, "/tmp")),  # noqa: S108 - text
                file=self._scrub.text(wrote) if wrote else "",
            )
        )
        return done


def recorded(xcrun: Tool, tell: Tell, *, simulator: bool) -> Transcript:
    """Return what the tools answer.

    Args:
        xcrun: The tool.
        tell: Hears each command.
        simulator: Also make a simulator, boot it, and delete it again.

    Raises:
        MissingError: There is no Xcode, or (with `simulator`) no runtime.
        RunFailedError: A command does not end.
    """
    version = ".".join(str(part) for part in xcode_version(xcrun))
    recorder = Recorder(xcrun, tell)
    for words in _ASKED:
        recorder.call(*words)
    if simulator:
        _cycle(recorder, xcrun)
    is_mac = sys.platform == "darwin"
    return Transcript(
        kind="recorded" if is_mac else "synthetic",
        source="mobilepack ios record on a Mac" if is_mac else "a stand-in for Apple's tools",
        xcode=version,
        calls=tuple(recorder.calls),
    )


def _cycle(recorder: Recorder, xcrun: Tool) -> None:
    words = _create_words(Simctl(xcrun.under("simctl")))
    made = recorder.call("simctl", "create", *words)
    if made.returncode != 0:
        raise fault(made, "cannot make a simulator to record")
    udid = made.stdout.strip()
    try:
        for one in _filled(udid):
            recorder.call(*one)
    finally:
        recorder.call("simctl", "delete", udid)


def _filled(udid: str) -> Iterator[tuple[str, ...]]:
    for words in _CYCLE:
        yield tuple(udid if word == "{udid}" else word for word in words)


def _create_words(simctl: Simctl) -> tuple[str, str, str]:
    return simctl.choice(simctl.listing(), "")
