"""What Apple's tools answered, written down so that it can be shared: scrubbed, with its origin."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract

JSON_OPTION = "--json-output"
FILE = "{file}"
"""Stands for the path behind `--json-output`."""

_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_PHONE = r"[0-9A-F]{8}-[0-9A-F]{16}|\b[0-9a-f]{40}\b"
_IDENTIFIER = re.compile(rf"{_UUID}|{_PHONE}")
_ALIAS = re.compile(r"[0-]{12,}\d{1,4}")
_OWN_SIMULATOR = re.compile(r"mobilepack-\d+")
# Keys of devicectl's and simctl's JSON that name a person's devices or machines.
_PRIVATE_NAMES = ("deviceProperties", "state")
_PRIVATE_KEYS = (
    *("ecid", "serialNumber", "localHostnames", "potentialHostnames", "bootedSnapshotName"),
    *("tunnelIPAddress", "arguments", "environment", "lastConnectionDate", "logPath"),
)


class Call(Contract):
    """One command.

    Attributes:
        argv: After `xcrun`.
        file: What it wrote behind `--json-output`; empty without one.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str = ""
    stderr: str = ""
    file: str = ""


class Transcript(Contract):
    """Commands in the order in which they were given.

    Attributes:
        kind: `recorded` from Apple's tools, `published` by somebody else, or `synthetic`: ours.
        source: Where it comes from, in words.
        xcode: Version.
    """

    schema_: Literal["mobilepack/apple-transcript/1"] = Field(
        "mobilepack/apple-transcript/1", alias="schema"
    )
    kind: Literal["recorded", "published", "synthetic"]
    source: str
    xcode: str
    calls: tuple[Call, ...]


class Scrubber:
    """Replaces what is private by what is the same wherever it stood: the same UDID stays the same.

    Identifiers become `00000000-0000-0000-0000-000000000001` and so on in their own form, home and
    user `/Users/me` and `me`, names of devices `a device`.
    """

    def __init__(self, home: Path | None = None, user: str = "") -> None:
        """Begin with nothing seen."""
        self._home = str(home or Path.home())
        self._user = user or getpass.getuser()
        self._seen: dict[str, str] = {}

    def text(self, text: str) -> str:
        """Return a text without what is private; JSON in it is scrubbed by its keys too."""
        try:
            document = json.loads(text)
        except ValueError:
            return self._plain(text)
        return self._plain(json.dumps(_by_key(document), indent=1))

    def argv(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return a command's words without what is private and without temporary paths."""
        words = [self._plain(word) for word in argv]
        for index, word in enumerate(words[:-1]):
            if word == JSON_OPTION:
                words[index + 1] = FILE
        return tuple(words)

    def _plain(self, text: str) -> str:
        text = _OWN_SIMULATOR.sub("mobilepack-1", text)
        text = _IDENTIFIER.sub(lambda found: self._alias(found[0]), text)
        text = text.replace(self._home, "/Users/me")
        return re.sub(rf"\b{re.escape(self._user)}\b", "me", text)

    def _alias(self, identifier: str) -> str:
        if _ALIAS.fullmatch(identifier):
            return identifier
        number = len(self._seen) + 1
        digits = re.sub(r"[0-9A-Fa-f]", "0", identifier)
        width = len(re.split("-", digits)[-1])
        alias = digits[:-width] + f"{number:0{width}d}"
        return self._seen.setdefault(identifier, alias)


def _by_key(value: object, inside: str = "") -> object:
    if isinstance(value, list):
        return [_by_key(one, inside) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _by_key(one, key) for key, one in value.items() if key not in _PRIVATE_KEYS}
    if inside in _PRIVATE_NAMES and "name" in kept:
        kept["name"] = "a device"
    return kept
