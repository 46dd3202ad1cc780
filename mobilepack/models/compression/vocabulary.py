"""Drop the tokens that a corpus does not need, without changing how the corpus is tokenised.

Kept are the tokens of the corpus, of the chat template, everything special, every byte, and every
token on the way to one of these: BPE builds a token by merges, and each intermediate result must
stay. Every merge that the full tokeniser makes on the corpus is then still there, and it is still
the first of those that can be made, so the result is the same token for token; other text falls
back to smaller tokens, at the end to bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mobilepack.errors import BuildError, UsageError
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.checkpoint import CONFIG, GENERATION_CONFIG
from mobilepack.models.config import Json, read_json
from mobilepack.models.tokenizer import (
    ADDED_TOKENS,
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
    Tokenizer,
)

_CHUNK = 1 << 20  # characters that are tokenised at once
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_ID_KEY = re.compile(r".*_token_ids?")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A choice of tokens.

    Attributes:
        kept: Old ids in the order of the new ones.
        size_before: Rows of the embedding table.
    """

    kept: tuple[int, ...]
    size_before: int

    @property
    def new_id(self) -> dict[int, int]:
        """New ids by old ones."""
        return {old: new for new, old in enumerate(self.kept)}


def choose_vocabulary(folder: Path, text: str, size: int) -> Vocabulary:
    """Return the tokens that a text needs.

    Args:
        folder: The checkpoint.
        text: The corpus.
        size: Rows of the model's embedding table.

    Raises:
        UsageError: The tokenizer is of a kind that cannot be cut.
    """
    model, data = _model(folder)
    wanted = _used(folder, text) | set(_special(folder, data)) | set(_alphabet(data))
    names = _names(model)
    if model["type"] == "BPE":
        ranks = {_pair(merge): rank for rank, merge in enumerate(_list(model, "merges"))}
        ids = {token: index for index, token in names.items()}
        for index in list(wanted):
            wanted |= {ids[part] for part in _path(names.get(index, ""), ranks) if part in ids}
    return Vocabulary(tuple(sorted(index for index in wanted if index < size)), size)


def _model(folder: Path) -> tuple[dict[str, Json], dict[str, Json]]:
    path, made = folder / TOKENIZER_FILE, Tokenizer.open(folder).made
    if made is None and not path.is_file():
        raise _cannot(folder, "it has no tokenizer.json")
    data = read_json(path) if made is None else json.loads(made)
    model = data.get("model")
    if not isinstance(model, dict) or model.get("type") not in ("BPE", "Unigram"):
        kind = model.get("type") if isinstance(model, dict) else None
        raise _cannot(folder, f"its model is {kind!r}, not BPE or Unigram")
    return model, data


def _cannot(folder: Path, why: str) -> UsageError:
    return UsageError(
        "vocabulary-kind",
        f"cannot prune the vocabulary of {folder}",
        why=why,
        next="make a tokenizer.json (transformers' AutoTokenizer, save_pretrained), or leave "
        "--prune-vocab out",
    )


def _list(model: Mapping[str, Json], key: str) -> list[Json]:
    value = model.get(key)
    return value if isinstance(value, list) else []


def _pair(merge: Json) -> tuple[str, str]:
    """Return a merge's two parts; old files write them with a space between."""
    if isinstance(merge, str):
        left, _, right = merge.partition(" ")
        return left, right
    assert isinstance(merge, list)  # noqa: S101 - the tokenizers library has read the file
    return str(merge[0]), str(merge[1])


def _names(model: Mapping[str, Json]) -> dict[int, str]:
    """Return the model's tokens by id."""
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        return {index: token for token, index in vocab.items() if isinstance(index, int)}
    pieces = (item[0] for item in _list(model, "vocab") if isinstance(item, list))
    return {index: str(piece) for index, piece in enumerate(pieces)}


def _used(folder: Path, text: str) -> set[int]:
    """Return the ids of a text, as a whole and line by line, and of the chat template."""
    tokenizer = Tokenizer.open(folder)
    template = ChatTemplate.open(folder)
    turns = [ChatMessage("user", ""), ChatMessage("assistant", "")]
    try:
        chats = [template.render(turns), template.render([ChatMessage("system", ""), *turns])]
    except UsageError:  # it takes no system message
        chats = [template.render(turns)]
    used: set[int] = set()
    for part in [*_parts(text), *text.splitlines(), *chats]:
        used.update(tokenizer.encode(part))
    return used


def _parts(text: str) -> Iterable[str]:
    """Cut a long text behind line ends."""
    lines: list[str] = []
    length = 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        length += len(line)
        if length >= _CHUNK:
            yield "".join(lines)
            lines, length = [], 0
    yield "".join(lines)


def _special(folder: Path, data: Mapping[str, Json]) -> Iterable[int]:
    """Yield every id that a file of the checkpoint names."""
    tokenizer = Tokenizer.open(folder)
    yield from (() if tokenizer.bos_id is None else (tokenizer.bos_id,))
    yield from tokenizer.eos_ids
    for item in _list(data, "added_tokens"):
        if isinstance(item, dict) and isinstance(item.get("id"), int):
            yield int(str(item["id"]))
    for name in (CONFIG, GENERATION_CONFIG):
        if (folder / name).is_file():
            yield from _ids(read_json(folder / name))
    if (folder / ADDED_TOKENS).is_file():
        yield from (i for i in read_json(folder / ADDED_TOKENS).values() if isinstance(i, int))


def _ids(config: Mapping[str, Json]) -> Iterable[int]:
    for key, value in config.items():
        if _ID_KEY.fullmatch(key):
            items = value if isinstance(value, list) else [value]
            yield from (item for item in items if isinstance(item, int) and item >= 0)


def _alphabet(data: Mapping[str, Json]) -> Iterable[int]:
    """Yield the ids of bytes and of the unknown token: what any text can fall back to."""
    model = data["model"]
    assert isinstance(model, dict)  # noqa: S101 - checked by `_model`
    names = _names(model)
    byte_level = '"ByteLevel"' in json.dumps([data.get("pre_tokenizer"), data.get("decoder")])
    unknown = {model.get("unk_token"), model.get("unk_id")}
    for index, token in names.items():
        is_byte = _BYTE.fullmatch(token) is not None or (byte_level and len(token) == 1)
        if is_byte or token in unknown or index in unknown:
            yield index


def _path(token: str, ranks: Mapping[tuple[str, str], int]) -> Iterable[str]:
    """Yield every token that BPE makes on the way from single characters to a token."""
    parts = list(token)
    yield from parts
    while len(parts) > 1:
        pairs = [ranks.get(pair) for pair in pairwise(parts)]
        best = min((rank for rank in pairs if rank is not None), default=None)
        if best is None:
            return
        at = pairs.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        yield parts[at]


def rewrite(folder: Path, vocabulary: Vocabulary) -> None:
    """Rewrite the tokenizer and config files of a folder in place for a smaller vocabulary."""
    new_id = vocabulary.new_id
    data = read_json(folder / TOKENIZER_FILE)
    model = data["model"]
    assert isinstance(model, dict)  # noqa: S101 - checked by `choose_vocabulary`
    _rewrite_model(model, new_id)
    data["added_tokens"] = [
        {**item, "id": new_id[int(str(item["id"]))]}
        for item in _list(data, "added_tokens")
        if isinstance(item, dict)
    ]
    data["post_processor"] = _renumbered(data.get("post_processor"), new_id)
    _write(folder / TOKENIZER_FILE, data)
    (folder / "tokenizer.model").unlink(missing_ok=True)  # tokenizer.json counts where both are
    _rewrite_configs(folder, new_id, len(vocabulary.kept))


def _rewrite_model(model: dict[str, Json], new_id: Mapping[int, int]) -> None:
    names = _names(model)
    kept = {new_id[index]: token for index, token in names.items() if index in new_id}
    if model["type"] == "Unigram":
        pieces = _list(model, "vocab")
        model["vocab"] = [pieces[index] for index in sorted(names) if index in new_id]
        unknown = model.get("unk_id")
        if isinstance(unknown, int):
            model["unk_id"] = new_id[unknown]
        return
    tokens = set(kept.values())
    model["vocab"] = {token: index for index, token in sorted(kept.items())}
    model["merges"] = [
        merge
        for merge in _list(model, "merges")
        if tokens.issuperset(pair := _pair(merge)) and "".join(pair) in tokens
    ]


def _renumbered(value: Json, new_id: Mapping[int, int]) -> Json:
    """Return a post-processor with new ids: `ids` lists, and [token, id] pairs of older kinds."""
    if isinstance(value, list):
        if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
            return [value[0], new_id[value[1]]]
        return [_renumbered(item, new_id) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: [new_id[int(str(index))] for index in item]
        if key == "ids" and isinstance(item, list)
        else _renumbered(item, new_id)
        for key, item in value.items()
    }


def _rewrite_configs(folder: Path, new_id: Mapping[int, int], size: int) -> None:
    config = folder / TOKENIZER_CONFIG
    if config.is_file():
        data = read_json(config)
        decoder = data.get("added_tokens_decoder")
        if isinstance(decoder, dict):
            data["added_tokens_decoder"] = {str(new_id[int(k)]): v for k, v in decoder.items()}
        _write(config, data)
    added = folder / ADDED_TOKENS
    if added.is_file():
        items = read_json(added).items()
        _write(added, {token: new_id[int(str(index))] for token, index in items})
    for name in (CONFIG, GENERATION_CONFIG):
        if (folder / name).is_file():
            data = {key: _new_ids(key, v, new_id) for key, v in read_json(folder / name).items()}
            _write(folder / name, data | ({"vocab_size": size} if name == CONFIG else {}))


def _new_ids(key: str, value: Json, new_id: Mapping[int, int]) -> Json:
    if not _ID_KEY.fullmatch(key):
        return value
    if isinstance(value, list):
        return [new_id.get(item, item) if isinstance(item, int) else item for item in value]
    return new_id.get(value, value) if isinstance(value, int) else value


def _write(path: Path, data: Mapping[str, Json]) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", "utf-8")


def check_round_trip(before: Path, after: Path, text: str, vocabulary: Vocabulary) -> None:
    """Check that a text gets the same tokens under their new ids.

    Raises:
        BuildError: It does not, which would be a fault of this module.
    """
    old, new = Tokenizer.open(before), Tokenizer.open(after)
    for part in (*_parts(text), *text.splitlines()):
        ids = new.encode(part)
        if [vocabulary.kept[index] for index in ids] != old.encode(part):
            raise BuildError(
                "vocabulary-differs",
                "the smaller vocabulary tokenises the corpus differently",
                why=f"first in {part[:60]!r}",
                next="build without --prune-vocab, and report the tokenizer",
            )
