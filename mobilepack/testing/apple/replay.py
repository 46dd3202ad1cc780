"""An `xcrun` that answers from a transcript: `python -m mobilepack.testing.apple.replay FILE …`.

A command that is given again gets the next answer to it, and the last one for ever; one that is not
in the transcript ends with 70, whatever the transcript says of others.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from mobilepack.contract.base import write_atomically
from mobilepack.harness.ios.transcript import JSON_OPTION, Call, Scrubber, Transcript
from mobilepack.testing.apple.install import ROOT, write_program

UNSEEN = 70


def replaying(folder: Path, transcript: Path) -> Path:
    """Write a `bin/xcrun` that replays a transcript from its beginning; return its path.

    Raises:
        UsageError: It is no transcript.
    """
    Transcript.read(transcript)
    state = folder / "given.json"
    write_atomically(state, "[]")
    tool = folder / "bin" / "xcrun"
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]
    words = [sys.executable, "-P", "-m", "mobilepack.testing.apple.replay"]
    line = shlex.join([*words, str(transcript.resolve()), str(state)])
    path = f"PYTHONPATH={shlex.quote(':'.join(paths))}"
    write_program(tool, f'#!/bin/sh\n{path} exec {line} "$@"\n')
    return tool


def main(arguments: list[str]) -> int:
    """Answer one command.

    Args:
        arguments: Transcript, file of what was given so far, then the words after `xcrun`.
    """
    transcript, state, words = Path(arguments[0]), Path(arguments[1]), arguments[2:]
    asked = Scrubber().argv(words)
    answers = [call for call in Transcript.read(transcript).calls if call.argv == asked]
    if not answers:
        sys.stderr.write(f"{transcript.name} has no answer to: {shlex.join(asked)}\n")
        return UNSEEN
    given: list[list[str]] = json.loads(state.read_text())
    before = given.count(list(asked))
    write_atomically(state, json.dumps([*given, list(asked)]))
    return _answer(answers[min(before, len(answers) - 1)], words)


def _answer(call: Call, words: list[str]) -> int:
    if call.file and JSON_OPTION in words:
        Path(words[words.index(JSON_OPTION) + 1]).write_text(call.file)
    sys.stdout.write(call.stdout)
    sys.stderr.write(call.stderr)
    return call.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
