"""JSON files of a checkpoint, decoded strictly, with every problem reported at once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from mobilepack.errors import UsageError, near_misses

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = Mapping[str, Json]

# A real config.json has a few KB; tokenizer.json of a 256k vocabulary has 35 MB.
MAX_JSON_BYTES = 200_000_000
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(path: Path) -> dict[str, Json]:
    """Decode a JSON file that holds one object.

    Raises:
        UsageError: The file cannot be read, is not JSON, repeats a key or is not an object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise not_json(path, f"it is larger than {MAX_JSON_BYTES} bytes")
        raw = path.read_bytes()
    except OSError as err:
        raise UsageError(
            "unreadable-file",
            f"cannot read {path}",
            why=str(err),
            next="check the path and its permissions",
        ) from err
    try:
        return parse_object(raw, constants=True)
    except ValueError as err:
        raise not_json(path, str(err)) from err


def not_json(path: Path, why: str) -> UsageError:
    """Return the error for a file that should hold a JSON object and does not."""
    return UsageError(
        "invalid-json",
        f"{path} is not a valid JSON object",
        why=why,
        next="copy the file again from where the checkpoint came from",
    )


def parse_object(raw: bytes, *, constants: bool = False) -> dict[str, Json]:
    """Decode one strict JSON object: UTF-8, valid Unicode, unique keys.

    Args:
        raw: The text.
        constants: Whether NaN and Infinity are let through; Python writes them into configs
            (Mamba 2's `time_step_limit`), and the typed readers judge each key.

    Raises:
        ValueError: With the cause in words; nothing else escapes, whatever the bytes.
    """
    hook = float if constants else _no_constant
    try:
        data: Json = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=hook)
        if _SURROGATE.search(raw):
            json.dumps(data, ensure_ascii=False).encode()  # raises if one has no partner
    except RecursionError as err:
        raise ValueError("its brackets are nested too deeply") from err
    if not isinstance(data, dict):
        raise ValueError(f"the outermost value is a {_type_name(data)}, not an object")
    return data


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} appears twice")
            seen.add(key)
    return result


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not a JSON number")


def _type_name(value: Json) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "list"}
    return "null" if value is None else names.get(type(value), "object")


def show(value: Json, limit: int = 80) -> str:
    """Return a value as short JSON text for a message."""
    text = json.dumps(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class ConfigReader:
    """Reads typed keys of a config and collects what is wrong with them.

    A reader method returns a harmless placeholder for a key it complains about, so that reading
    goes on and `finish` reports all problems at once.
    """

    def __init__(self, config: JsonObject, file: str = "config.json", prefix: str = "") -> None:
        self.config = config
        self.file = file
        self.prefix = prefix
        self.problems: list[str] = []
        self._asked: set[str] = set()
        self._aliases: dict[str, tuple[str, ...]] = {}
        self._children: list[ConfigReader] = []

    def alias(self, **other: str) -> None:
        """Say under which other name a key may stand in the file, separated by spaces."""
        self._aliases |= {key: tuple(names.split()) for key, names in other.items()}

    def problem(self, key: str, text: str) -> None:
        """Note that a key is wrong."""
        self.problems.append(f"{self.prefix}{self._spelt(key)}: {text}")

    def _spelt(self, key: str) -> str:
        """Return the name under which a key stands in the file."""
        names = (key, *self._aliases.get(key, ()))
        return next((name for name in names if name in self.config), key)

    def names(self, key: str) -> bool:
        """Tell whether a key is present, be it null."""
        self._asked.update((key, *self._aliases.get(key, ())))
        return self._spelt(key) in self.config

    def has(self, key: str) -> bool:
        """Tell whether a key is present and not null."""
        return self.get(key) is not None

    def get(self, key: str) -> Json:
        """Return a key's value as decoded, None where it is absent."""
        self._asked.update((key, *self._aliases.get(key, ())))
        return self.config.get(self._spelt(key))

    def fixed(self, key: str, *allowed: Json) -> None:
        """Note a key whose value is none of those that this family can build; absent is fine."""
        value = self.get(key)
        if value is not None and value not in allowed:
            named = " or ".join(show(item) for item in allowed)
            self.problem(key, f"is {show(value)}; only {named} can be built")

    def integer(self, key: str, default: int | None = None, *, minimum: int = 1) -> int:
        """Return an integer key; without a default it must be present and not null."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.problem(key, "is missing; an integer is needed")
            return max(minimum, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not _small(value):
            self.problem(key, f"is {show(value)}; an integer is needed")
            return max(minimum, 1)
        if value < minimum:
            self.problem(key, f"is {value}; at least {minimum} is needed")
            return max(minimum, 1)
        return value

    def number(self, key: str, default: float | None = None, *, above: float = 0.0) -> float:
        """Return a finite number greater than `above`; without a default it must be present."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.problem(key, "is missing; a number is needed")
            return 1.0
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
            self.problem(key, f"is {show(value)}; a number is needed")
            return 1.0
        if value <= above:
            self.problem(key, f"is {show(value)}; a number above {above:g} is needed")
            return 1.0
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean key."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(key, f"is {show(value)}; true or false is needed")
            return default
        return value

    def choice(self, key: str, allowed: Iterable[str], default: str) -> str:
        """Return a string key that must be one of the allowed names."""
        value = self.get(key)
        if value is None:
            return default
        names = list(allowed)
        if not isinstance(value, str):
            self.problem(key, f"is {show(value)}; one of {', '.join(sorted(names))} is needed")
            return default
        if value not in names:
            self.problem(key, f"is {show(value)}; {near_misses(value, names)}")
            return default
        return value

    def token_ids(self, key: str) -> tuple[int, ...]:
        """Return a key that holds one token id, a list of them, or null."""
        value = self.get(key)
        items = value if isinstance(value, list) else [] if value is None else [value]
        ids = [i for i in items if isinstance(i, int) and not isinstance(i, bool) and _small(i)]
        if len(ids) != len(items) or any(i < 0 for i in ids):
            self.problem(key, f"is {show(value)}; a token id or a list of token ids is needed")
            return ()
        return tuple(dict.fromkeys(ids))

    def child(self, key: str) -> ConfigReader | None:
        """Return a reader of a nested object that reports into this one, None where absent."""
        value = self.get(key)
        if value is None or value == {}:
            return None
        if not isinstance(value, dict):
            self.problem(key, f"is {show(value)}; an object is needed")
            return None
        reader = ConfigReader(value, self.file, f"{self.prefix}{key}.")
        reader.problems = self.problems
        self._children.append(reader)
        return reader

    def misspelt(self) -> None:
        """Note unknown keys that are nearly the name of a key that was asked for and is absent."""
        absent = [key for key in self._asked if key not in self.config]
        for key in self.config:
            close = [] if key in self._asked else get_close_matches(key, absent, 1, cutoff=0.93)
            if close:
                self.problem(key, f"is not a key of this family; did you mean {close[0]!r}?")

    def not_understood(self, harmless: re.Pattern[str]) -> None:
        """Note every key that nobody asked for, here and in the objects within.

        It may change what the model computes. Keys that are switched off (null, false, empty) or
        are known not to matter pass.
        """
        for key, value in self.config.items():
            off = value is None or value is False or value in ("", [], {})
            if off or key in self._asked or harmless.fullmatch(key):
                continue
            hint = near_misses(key, [name for name in self._asked if name not in self.config])
            near = f"; {hint}" if hint.startswith("did you mean") else ""
            self.problem(
                key, f"is {show(value)}; nothing here reads it, and it may change the model{near}"
            )
        for child in self._children:
            child.not_understood(harmless)

    def finish(self, harmless: re.Pattern[str] | None = None) -> None:
        """Raise one UsageError with every problem noted, if there is any.

        Args:
            harmless: If given, keys that nobody asked for are problems, except those it matches.
        """
        if harmless is None:
            self.misspelt()
        else:
            self.not_understood(harmless)
        if self.problems:
            raise UsageError(
                "invalid-config",
                f"{self.file} does not describe a model that can be built",
                why="; ".join(self.problems),
                next=f"correct the keys named in {self.file}, or download the checkpoint again",
            )


def _small(value: int) -> bool:
    """Tell whether an integer fits 63 bits, so that no later arithmetic or message explodes."""
    return -(2**63) <= value < 2**63


def _finite(value: float) -> bool:
    return _small(value) if isinstance(value, int) else math.isfinite(value)
