"""Which words each tool takes, per version: `grammar/xcode-<version>.toml`, and the lab's."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "grammar"


class RefusedError(Exception):
    """The tool does not take these words."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one subcommand takes.

    Attributes:
        flags: Options without a value.
        values: Options with one, as `--x=V` or `--x V`.
        required: Options that may not be left out.
        least: Positional words at least.
        most: At most; None for any number.
        app_words: Words after the last positional one belong to the app (`--` may precede them).
    """

    flags: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    least: int = 0
    most: int | None = 0
    app_words: bool = False


@dataclass(slots=True)
class Words:
    """Arguments that were understood."""

    flags: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    positional: list[str] = field(default_factory=list)
    app: list[str] = field(default_factory=list)


def versions() -> tuple[str, ...]:
    """Return the versions of Xcode whose words are known, oldest first."""
    names = [path.stem.removeprefix("xcode-") for path in FOLDER.glob("xcode-*.toml")]
    return tuple(sorted(names, key=lambda name: [int(part) for part in name.split(".")]))


def shapes(xcode: str) -> dict[str, dict[str, Shape]]:
    """Return what Xcode's tools take; see `tools`."""
    return tools(f"xcode-{xcode}")


@cache
def tools(table: str) -> dict[str, dict[str, Shape]]:
    """Return tool, then subcommand (its words joined by blanks), then what it takes."""
    data = tomllib.loads((FOLDER / f"{table}.toml").read_text("utf-8"))
    return {tool: _shapes(table) for tool, table in data["tool"].items()}


def facts(xcode: str) -> dict[str, str]:
    """Return what else is known of a version: build, `json_version`, where it all comes from."""
    data = tomllib.loads((FOLDER / f"xcode-{xcode}.toml").read_text("utf-8"))
    return {key: str(value) for key, value in data.items() if key != "tool"}


def _shapes(table: dict[str, dict[str, object]]) -> dict[str, Shape]:
    def shape(row: dict[str, object]) -> Shape:
        made = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}
        if made.get("most") == -1:
            made["most"] = None
        return Shape(**made)  # type: ignore[arg-type]

    return {name: shape(row) for name, row in table.items()}


def parse(shape: Shape, arguments: list[str]) -> Words:
    """Sort a subcommand's arguments.

    Raises:
        RefusedError: A word that it does not take, or one too many or too few.
    """
    words, rest = Words(), list(arguments)
    while rest:
        word = rest.pop(0)
        if shape.app_words and len(words.positional) >= shape.least:
            words.app = rest if word == "--" else [word, *rest]
            break
        if word.startswith("-") and word != "-":
            _option(shape, word, rest, words)
        else:
            words.positional.append(word)
    _check(shape, words)
    return words


def _option(shape: Shape, word: str, rest: list[str], words: Words) -> None:
    name, equals, value = word.partition("=")
    if name in shape.flags and not equals:
        words.flags.add(name)
    elif name in shape.values and equals:
        words.values[name] = value
    elif name in shape.values and rest:
        words.values[name] = rest.pop(0)
    elif name in shape.values:
        raise RefusedError(f"Missing value for '{name}'")
    else:
        raise RefusedError(f"Unknown option '{word}'")


def _check(shape: Shape, words: Words) -> None:
    missing = [name for name in shape.required if name not in words.values]
    if missing:
        raise RefusedError(f"Missing expected argument '{missing[0]}'")
    count = len(words.positional)
    if count < shape.least:
        raise RefusedError("Missing expected argument")
    if shape.most is not None and count > shape.most:
        raise RefusedError(f"Unexpected argument '{words.positional[shape.most]}'")
