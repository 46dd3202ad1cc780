"""A checkpoint, a Hugging Face folder or a GGUF file: its configs, licence and weights by key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from mobilepack.contract.manifest import Licence
from mobilepack.errors import UsageError
from mobilepack.models import hub, refusals
from mobilepack.models.config import Json, JsonObject, read_json, show
from mobilepack.models.gguf.companions import open_gguf
from mobilepack.models.gguf.find import gguf_in, is_gguf
from mobilepack.models.safetensors_file import SafetensorsFile
from mobilepack.models.weight_file import TensorInfo, WeightFile

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tekken.json",
    "qwen.tiktoken",
    "tiktoken.model",
)
_LICENCE_FILES = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|USE_POLICY)\b.*", re.IGNORECASE)
_LICENCE_LINE = re.compile(r"^licen[cs]e:\s*[\"']?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint.

    Attributes:
        folder: Where its files are; for a hub checkpoint, the snapshot in the cache.
        source: What the user named: a folder or a hub id.
        revision: Commit of a hub checkpoint, else None.
        config: config.json as decoded.
        generation_config: generation_config.json as decoded, empty where absent.
        files: The open weight file of every key.
        gguf: Whether the keys and layouts of the tensors are llama.cpp's.
    """

    folder: Path
    source: str
    revision: str | None
    config: JsonObject
    generation_config: JsonObject
    files: Mapping[str, WeightFile]
    gguf: bool = False

    @classmethod
    def open(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        offline: bool = False,
        check: Callable[[JsonObject], object] | None = None,
    ) -> Self:
        """Open a local folder or GGUF file, or a hub id that is fetched unless the cache has it.

        Args:
            source: Folder, GGUF file or hub id; what exists wins.
            revision: Branch, tag or commit of a hub id.
            offline: Use what the hub cache has, never the network.
            check: Raises if the config cannot be built; called before weights are downloaded.

        Raises:
            UsageError: It is not a checkpoint that can be built; `why` says in what way.
            MissingError: The hub or its cache does not have it.
        """
        folder, commit = _locate(str(source), revision, offline, check)
        found = gguf_in(folder)
        files: Mapping[str, WeightFile]
        if found is not None:
            folder, files = open_gguf(found, check)
        config = _config(folder, check)
        generation = folder / GENERATION_CONFIG
        return cls(
            folder=folder,
            source=str(source),
            revision=commit,
            config=MappingProxyType(config),
            generation_config=MappingProxyType(
                read_json(generation) if generation.is_file() else {}
            ),
            files=MappingProxyType(files if found is not None else _open_weights(folder)),
            gguf=found is not None,
        )

    def close(self) -> None:
        """Close the weight files."""
        for file in set(self.files.values()):
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keys(self) -> Iterable[str]:
        """Return the names of all tensors."""
        return self.files.keys()

    def info(self, key: str) -> TensorInfo:
        """Return a tensor's element type, shape and place."""
        return self.files[key].tensors[key]

    def readable(self, key: str) -> bool:
        """Tell whether a tensor can be read as float32."""
        return self.files[key].readable(key)

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self.info(key).shape

    def rows(
        self, key: str, start: int, stop: int, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive) of a tensor as float32, see SafetensorsFile."""
        return self.files[key].read_rows(key, start, stop, out)

    @property
    def place(self) -> Path:
        """Where the weights are, for messages."""
        return next(iter(self.files.values())).path if self.gguf else self.folder

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as stored."""
        return sum(self.info(key).nbytes for key in self.files)

    @cached_property
    def licence(self) -> Licence:
        """What README.md's front matter or a licence file says, and which files say it."""
        names = sorted(p.name for p in self.folder.iterdir() if _LICENCE_FILES.fullmatch(p.name))
        return Licence(name=_licence_name(self.folder, names), files=tuple(names))

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the configs, the tokenizer files and the weight files' identity.

        A weight file is identified by name, header, size and modification time, not by its
        content: reading that would cost as much as building.
        """
        parts: list[bytes] = []
        for name in (CONFIG, GENERATION_CONFIG, *TOKENIZER_FILES):
            path = self.folder / name
            if path.is_file():
                parts += [name.encode(), hashlib.sha256(path.read_bytes()).digest()]
        for file in sorted(set(self.files.values()), key=lambda file: file.path.name):
            identity = f"{file.size_bytes} {file.mtime_ns}".encode()
            parts += [file.path.name.encode(), file.header_sha256, identity]
        # With their lengths, so that no two lists of parts read the same.
        return hashlib.sha256(
            b"".join(len(part).to_bytes(8, "little") + part for part in parts)
        ).hexdigest()


def _locate(
    source: str, revision: str | None, offline: bool, check: Callable[[JsonObject], object] | None
) -> tuple[Path, str | None]:
    """Return the folder or GGUF file of a source, and the commit if it came from the hub."""
    path = Path(source).expanduser()
    if path.is_dir() or is_gguf(path):
        if revision is not None:
            raise UsageError(
                "revision-of-folder",
                f"cannot open revision {revision!r} of {source}",
                why="it is a local one, and only hub checkpoints have revisions",
                next="leave --revision out, or give a hub id",
            )
        return path, None
    if path.exists():
        raise refusals.not_a_folder(path)
    if not hub.is_hub_id(source):
        raise refusals.no_such_folder(source)
    return hub.fetch(source, revision, offline=offline, check=lambda folder: _config(folder, check))


def _config(folder: Path, check: Callable[[JsonObject], object] | None) -> dict[str, Json]:
    path = folder / CONFIG
    if not path.is_file():
        raise refusals.no_config(folder)
    config = read_json(path)
    if (folder / "adapter_config.json").is_file():
        raise refusals.adapter(folder)
    refusals.check_config(config, path)
    if check is not None:
        check(config)
    return config


def _open_weights(folder: Path) -> dict[str, SafetensorsFile]:
    """Open the single weight file, or all shards of the index; transformers prefers the former."""
    if (folder / WEIGHTS).is_file():
        file = SafetensorsFile.open(folder / WEIGHTS)
        return dict.fromkeys(file.tensors, file)
    if not (folder / INDEX).is_file():
        raise refusals.no_weights(folder)
    weight_map = _read_index(folder / INDEX)
    missing = sorted({name for name in weight_map.values() if not (folder / name).is_file()})
    if missing:
        raise UsageError(
            "missing-shard",
            f"the weights in {folder} are incomplete",
            why=f"{INDEX} names {', '.join(missing)}, which are not there",
            next="download the checkpoint again; a partial download continues where it stopped",
        )
    return _open_shards(folder, weight_map)


def _read_index(path: Path) -> dict[str, str]:
    """Return the index's map from key to shard; shard names are plain file names."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise malformed_index(path, "weight_map is not an object with at least one key")
    result: dict[str, str] = {}
    for key, name in weight_map.items():
        plain = isinstance(name, str) and re.fullmatch(r"[\w.+-]+\.safetensors", name)
        if not isinstance(name, str) or not plain:
            raise malformed_index(path, f"{key!r} lies in {show(name)}, not a plain file name")
        result[key] = name
    return result


def malformed_index(path: Path, why: str) -> UsageError:
    """Return the error for an index that does not fit its shards."""
    return UsageError(
        "invalid-index",
        f"{path} is not a valid index of shards",
        why=why,
        next="download the index and the shards again, all from the same revision",
    )


def _open_shards(folder: Path, weight_map: dict[str, str]) -> dict[str, SafetensorsFile]:
    shards = {
        name: SafetensorsFile.open(folder / name) for name in sorted(set(weight_map.values()))
    }
    held = [(key, name) for name, file in shards.items() for key in file.tensors]
    wrong = [f"{key!r} is in {name}" for key, name in held if weight_map.get(key) != name]
    lost = [f"{k!r} is not in {n}" for k, n in weight_map.items() if k not in shards[n].tensors]
    if wrong or lost:
        listed = wrong + lost
        more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
        raise malformed_index(folder / INDEX, "; ".join(listed[:8]) + more)
    return {key: shards[name] for key, name in weight_map.items()}


def _licence_name(folder: Path, files: list[str]) -> str | None:
    """Return the licence as README.md's front matter names it, else as a licence file begins."""
    readme = folder / "README.md"
    if readme.is_file():
        text = readme.read_text("utf-8", errors="replace")[:20_000]
        front = text.split("\n---", 1)[0] if text.startswith("---") else ""
        if match := _LICENCE_LINE.search(front):
            return match[1]
    for name in files:
        head = (folder / name).read_text("utf-8", errors="replace")[:2_000]
        first = next((line.strip() for line in head.splitlines() if line.strip()), None)
        if first and not name.upper().startswith("NOTICE"):
            return first[:80]
    return None
