"""A checkpoint's tokenizer: text to ids, ids to text, and text piece by piece while it grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mobilepack.contract.manifest import TokenizerInfo
from mobilepack.errors import MissingError, UsageError
from mobilepack.models.checkpoint import CONFIG, GENERATION_CONFIG, TOKENIZER_FILES
from mobilepack.models.config import ConfigReader, Json, JsonObject, read_json
from mobilepack.models.tokenizer_backends import (
    AddedToken,
    Backend,
    HuggingFaceBackend,
    SentencePieceBackend,
)

TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
TOKENIZER_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"
_LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_REPLACEMENT = "\ufffd"
_ID_DIGITS = 9  # of a plausible token id


@dataclass(frozen=True)
class Tokenizer:
    """An open tokenizer.

    Attributes:
        files: Names of its files in the folder, all that a package must carry.
        special: Named special tokens (`bos_token`, `eos_token`, ...) by name.
        bos_id: Beginning of sequence, None if the model has none.
        eos_ids: Every id that ends generation, by the tokenizer and the model's configs.
        add_bos: Whether a text gets the bos id in front; tokenizer.json says that itself, in its
            post-processor, so this is for SentencePiece (transformers 5.23 `_from_pretrained`).
        add_eos: Likewise for the end.
        chat_template: Whether the folder has one.
    """

    backend: Backend
    files: tuple[str, ...]
    special: dict[str, str]
    bos_id: int | None
    eos_ids: tuple[int, ...]
    add_bos: bool
    add_eos: bool
    chat_template: bool

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the tokenizer of a checkpoint or package folder.

        Raises:
            MissingError: The folder has no tokenizer that can be read.
            UsageError: A tokenizer file is broken.
        """
        config = _optional(folder / TOKENIZER_CONFIG)
        special = special_tokens(folder)
        backend = _backend(folder, config)
        reader = ConfigReader(config, TOKENIZER_CONFIG)
        bos, eos = _named_id(backend, special, "bos"), _named_id(backend, special, "eos")
        model_bos, model_eos = _model_ids(folder)
        opened = cls(
            backend=backend,
            files=tuple(name for name in TOKENIZER_FILES if (folder / name).is_file()),
            special=special,
            bos_id=bos if bos is not None else next(iter(model_bos), None),
            eos_ids=tuple(dict.fromkeys((*model_eos, *([] if eos is None else [eos])))),
            add_bos=reader.flag("add_bos_token", False) and backend.kind == "sentencepiece",
            add_eos=reader.flag("add_eos_token", False) and backend.kind == "sentencepiece",
            chat_template=has_chat_template(folder, config),
        )
        reader.finish()
        return opened

    def encode(self, text: str, *, add_bos: bool | None = None) -> list[int]:
        """Return the ids of a text.

        Args:
            text: Special tokens in it become their ids.
            add_bos: False: nothing is added. True: the bos id is put in front, once.
                None: what transformers adds by default for this checkpoint.

        Raises:
            UsageError: The text is not valid Unicode, or the model has no bos id to add.
        """
        _check_text(text)
        if add_bos is None:
            return self._encode_as_configured(text)
        ids = self.backend.encode(text, add_special=False)
        if not add_bos or ids[:1] == [self.bos_id]:
            return ids
        if self.bos_id is None:
            raise UsageError(
                "no-bos",
                "cannot add the beginning-of-sequence token",
                why="this checkpoint's tokenizer has none",
                next="encode without it",
            )
        return [self.bos_id, *ids]

    def _encode_as_configured(self, text: str) -> list[int]:
        ids = self.backend.encode(text, add_special=True)
        bos = [self.bos_id] if self.add_bos and self.bos_id is not None else []
        eos = self._named_eos() if self.add_eos else []
        return [*bos, *ids, *eos]

    def _named_eos(self) -> list[int]:
        index = _named_id(self.backend, self.special, "eos")
        return [] if index is None else [index]

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Return the text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self.backend.decode(ids, skip_special=skip_special)

    def stream(self, *, after: Sequence[int] = (), skip_special: bool = True) -> TextStream:
        """Return an incremental detokeniser.

        Args:
            after: Ids that came before, whose text is not returned (the prompt's last few); they
                decide whether the first word keeps its leading space.
            skip_special: Whether special tokens are left out.
        """
        return TextStream(self.backend, after, skip_special)

    @property
    def size(self) -> int:
        """One more than the largest id; a model needs at least that many embedding rows."""
        return self.backend.size

    def info(self) -> TokenizerInfo:
        """Return what the manifest says about the tokenizer."""
        return TokenizerInfo(
            kind=self.backend.kind,
            files=self.files,
            bos_id=self.bos_id,
            eos_ids=self.eos_ids,
            chat_template=self.chat_template,
        )


class TextStream:
    """Turns ids into text as they come, holding back what may be the start of a character.

    The text of a token depends on its neighbours (a character's bytes can be spread over tokens,
    a leading space is dropped), so a window that begins at the last emitted token is decoded with
    and without the new ids, and the difference is emitted once it does not end in U+FFFD.
    """

    def __init__(self, backend: Backend, after: Sequence[int], skip_special: bool) -> None:
        self._backend = backend
        self._skip_special = skip_special
        self._ids = list(after)
        self._emitted = len(self._ids)

    def push(self, index: int) -> str:
        """Take the next id and return the text that is now certain, often one word or none."""
        self._ids.append(index)
        text, before = self._decode(self._ids), self._decode(self._ids[: self._emitted])
        if len(text) <= len(before) or text.endswith(_REPLACEMENT):
            return ""
        return self._emit(text[len(before) :])

    def finish(self) -> str:
        """Return what was held back; an incomplete character becomes U+FFFD."""
        text, before = self._decode(self._ids), self._decode(self._ids[: self._emitted])
        return self._emit(text[len(before) :])

    def _emit(self, text: str) -> str:
        self._ids = self._ids[self._emitted :]
        self._emitted = len(self._ids)
        return text

    def _decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode(ids, skip_special=self._skip_special)


def special_tokens(folder: Path) -> dict[str, str]:
    """Return the named special tokens.

    As in transformers 5.23: special_tokens_map.json counts, and then wins, only if
    tokenizer_config.json has no `added_tokens_decoder`. A folder with a SentencePiece model only
    has Llama's three tokens unless it says otherwise (LlamaTokenizer, which reads such folders).
    """
    config = _optional(folder / TOKENIZER_CONFIG)
    named = {} if "added_tokens_decoder" in config else _optional(folder / SPECIAL_TOKENS_MAP)
    sentencepiece = backend_file(folder) == SENTENCEPIECE_FILE
    found = dict(_LLAMA_TOKENS) if sentencepiece else {}
    for key, value in {**config, **named}.items():
        content = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(content, str):
            found[key] = content
    return found


def has_chat_template(folder: Path, config: JsonObject) -> bool:
    """Tell whether a folder has a chat template, in its own file or in tokenizer_config.json."""
    return (folder / "chat_template.jinja").is_file() or bool(config.get("chat_template"))


def _optional(path: Path) -> dict[str, Json]:
    return read_json(path) if path.is_file() else {}


def _named_id(backend: Backend, special: dict[str, str], name: str) -> int | None:
    token = special.get(f"{name}_token")
    return None if token is None else backend.token_id(token)


def _model_ids(folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the bos and the eos ids of generation_config.json and config.json."""
    bos: list[int] = []
    eos: list[int] = []
    for name in (CONFIG, GENERATION_CONFIG):
        reader = ConfigReader(_optional(folder / name), name)
        bos += reader.token_ids("bos_token_id")
        eos += reader.token_ids("eos_token_id")
    return tuple(bos), tuple(eos)


def backend_file(folder: Path) -> str | None:
    """Return which vocabulary file counts; tokenizer.json wins, as in transformers."""
    names = (TOKENIZER_FILE, SENTENCEPIECE_FILE)
    return next((name for name in names if (folder / name).is_file()), None)


def _backend(folder: Path, config: JsonObject) -> Backend:
    name = backend_file(folder)
    if name is None:
        raise _missing(folder)
    added = _added_tokens(folder, config)
    if name == TOKENIZER_FILE:
        return HuggingFaceBackend.open(folder / name, added)
    return SentencePieceBackend.open(folder / name, added, legacy=config.get("legacy") is True)


def _missing(folder: Path) -> MissingError:
    others = ("vocab.json", "merges.txt", "vocab.txt", "tekken.json", "tokenizer.model.v3")
    found = [name for name in others if (folder / name).is_file()]
    found += sorted(path.name for path in folder.glob("*.tiktoken"))
    why = "it has neither tokenizer.json nor tokenizer.model"
    return MissingError(
        "no-tokenizer",
        f"{folder} has no tokenizer",
        why=f"{why}; {', '.join(found)} alone cannot be read" if found else why,
        next="copy tokenizer.json there, or make it: python -c "
        '"from transformers import AutoTokenizer as A; '
        f"A.from_pretrained('{folder}').save_pretrained('{folder}')\"",
    )


def _added_tokens(folder: Path, config: JsonObject) -> dict[int, AddedToken]:
    """Return the tokens of added_tokens.json and of `added_tokens_decoder`, which wins."""
    found: dict[int, AddedToken] = {}
    for content, index in _optional(folder / ADDED_TOKENS).items():
        if isinstance(index, int) and content:
            found[index] = AddedToken(content)
    decoder = config.get("added_tokens_decoder")
    for key, value in decoder.items() if isinstance(decoder, dict) else ():
        if not key.isdecimal() or len(key) > _ID_DIGITS or not isinstance(value, dict):
            continue
        text = value.get("content")
        if isinstance(text, str) and text:
            flags = {name: value.get(name) is True for name in ("special", "lstrip", "rstrip")}
            found[int(key)] = AddedToken(text, **flags)
    return found


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise UsageError(
            "invalid-text",
            "cannot tokenize the text",
            why=f"it is not valid Unicode: {err.reason} at character {err.start}",
            next="pass it as UTF-8",
        ) from err
