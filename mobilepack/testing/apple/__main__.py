"""`xcrun TOOL …`, as `python -m mobilepack.testing.apple FOLDER TOOL …`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from mobilepack.testing.apple import devicectl, grammar, simctl
from mobilepack.testing.apple.answers import NO_UTILITY, USAGE, EndError
from mobilepack.testing.apple.grammar import RefusedError, Words
from mobilepack.testing.apple.state import opened

_TOOLS: dict[str, Callable[[Path, str, Words], int]] = {
    "simctl": simctl.run,
    "devicectl": devicectl.run,
}


def main(arguments: list[str]) -> int:
    """Run a tool; return its exit status.

    Args:
        arguments: Folder of the state, then the words after `xcrun`.
    """
    folder, words = Path(arguments[0]), arguments[1:]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    with opened(folder) as state:
        xcode = state.xcode
    try:
        return _run(folder, xcode, words)
    except RefusedError as err:
        sys.stderr.write(f"Error: {err}\nUsage: {words[0]} <subcommand>\n")
        return USAGE
    except EndError as err:
        sys.stderr.write(f"{err.text}\n")
        return err.status


def _run(folder: Path, xcode: str, words: list[str]) -> int:
    tool, rest = (words or [""])[0], words[1:]
    known = grammar.shapes(xcode).get(tool)
    if known is None:
        text = f'xcrun: error: unable to find utility "{tool}", not a developer tool or in PATH'
        raise EndError(NO_UTILITY, text)
    for length in (3, 2, 1):
        name = " ".join(rest[:length])
        if len(rest) >= length and name in known:
            found = grammar.parse(known[name], rest[length:])
            return _version(xcode) if tool == "xcodebuild" else _TOOLS[tool](folder, name, found)
    raise RefusedError(f"Unrecognized subcommand: {' '.join(rest[:1])}")


def _version(xcode: str) -> int:
    sys.stdout.write(f"Xcode {xcode}\nBuild version {grammar.facts(xcode)['build']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
