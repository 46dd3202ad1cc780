"""What every contract file shares: strict frozen models, canonical JSON, one error per file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from mobilepack.errors import UsageError


class Contract(BaseModel):
    """A frozen record read from or written to a file; unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True
    )

    def to_json(self) -> str:
        """Return the record as indented JSON with a final newline."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Parse and validate a JSON file.

        Raises:
            UsageError: The file is missing, is not JSON, or breaks the schema; every problem of
                the file is reported at once.
        """
        try:
            text = path.read_bytes()
        except OSError as err:
            raise UsageError(
                "unreadable-file",
                f"cannot read {path}",
                why=str(err),
                next="check the path, or build the package again",
            ) from err
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: bytes | str, name: str) -> Self:
        """Parse and validate JSON text; `name` is how errors call it."""
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as err:
            raise UsageError(
                "invalid-file",
                f"{name} is not a valid {cls.__name__}",
                why=problems(err),
                next="build it again with this version of mobilepack, or correct the keys named",
            ) from err


def problems(err: ValidationError) -> str:
    """Return all problems of a validation error, one per key, as `key: what is wrong`."""
    rows = []
    for item in err.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        rows.append(f"{key}: {item['msg']}")
    return "; ".join(rows)


def canonical_json(record: BaseModel) -> bytes:
    """Return the one byte string of a record: sorted keys, no spaces, UTF-8."""
    data = record.model_dump(mode="json", by_alias=True)
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def content_id(record: BaseModel) -> str:
    """Return the sha256 (hex) of a record's canonical JSON."""
    return hashlib.sha256(canonical_json(record)).hexdigest()


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file aside and rename it, so that a reader sees the old or the new one, whole."""
    raw = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
