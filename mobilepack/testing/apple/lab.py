"""go-ios and pymobiledevice3, as `python -m mobilepack.testing.apple.lab FOLDER PROGRAM …`.

Both reach the iPhones of a `StandInXcode`, as both reach the real ones beside Apple's tools.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from mobilepack.testing.apple import goios, grammar, pymobile
from mobilepack.testing.apple.answers import EndError
from mobilepack.testing.apple.grammar import RefusedError, Shape, Words

Run = Callable[[Path, str, Words, list[str]], int]
PROGRAMS: dict[str, tuple[str, Run, int, str]] = {
    "ios": ("go-ios-1.2.0", goios.run, 1, goios.USAGE),
    "pymobiledevice3": ("pymobiledevice3-11.45.0", pymobile.run, 2, pymobile.USAGE),
}
"""By name: its grammar, what carries it out, and how it refuses words (status, text)."""


def main(arguments: list[str]) -> int:
    """Run a program; return its exit status.

    Args:
        arguments: Folder of the state, name of the program, its words.
    """
    folder, program, words = Path(arguments[0]), arguments[1], arguments[2:]
    with (folder / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps([program, *words]) + "\n")
    table, run, refusal, usage = PROGRAMS[program]
    try:
        name, rest = _subcommand(grammar.tools(table)[program], words)
        return run(folder, name, grammar.parse(grammar.tools(table)[program][name], rest), words)
    except RefusedError as err:
        sys.stderr.write(f"{usage}\n{err}\n")
        return refusal
    except EndError as err:
        sys.stderr.write(f"{err.text}\n")
        return err.status


def _subcommand(known: dict[str, Shape], words: list[str]) -> tuple[str, list[str]]:
    """Return the subcommand and what is left: options may stand before and between its words."""
    plain = [number for number, word in enumerate(words) if not word.startswith("-")]
    for length in (3, 2, 1):
        taken = plain[:length]
        name = " ".join(words[number] for number in taken)
        if name in known:
            return name, [word for number, word in enumerate(words) if number not in taken]
    raise RefusedError(f"No such command {' '.join(words[:1])!r}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
