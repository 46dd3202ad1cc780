"""A checkpoint's tokenizer: text to ids, ids to text, and text piece by piece while it grows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mobilepack.contract.manifest import TokenizerInfo
from mobilepack.errors import MissingError, UsageError
from mobilepack.models.checkpoint import CONFIG, GENERATION_CONFIG, TOKENIZER_FILES
from mobilepack.models.config import ConfigReader, Json, JsonObject, read_json
from mobilepack.models.text_stream import TextStream
from mobilepack.models.tokenizer_backends import (
    AddedToken,
    Backend,
    HuggingFaceBackend,
    SentencePieceBackend,
)
from mobilepack.models.tokenizer_conversion import SOURCES, conversion_source, converted

TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
TOKENIZER_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"
_LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_ID_DIGITS = 9  # of a plausible token id


@dataclass(frozen=True)
class Tokenizer:
    """An open tokenizer.

    Attributes:
        files: Names of its files in a package.
        made: Text of a tokenizer.json that was made of another vocabulary, None where the
            folder's own is used; a package carries it.
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
    made: str | None
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
        made = _converted(folder, config)
        backend = _backend(folder, config, made)
        reader = ConfigReader(config, TOKENIZER_CONFIG)
        bos, eos = _named_id(backend, special, "bos"), _named_id(backend, special, "eos")
        model_bos, model_eos = _model_ids(folder)
        opened = cls(
            backend=backend,
            files=_package_files(folder, made),
            made=made,
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
    def rows(self) -> int:
        """Embedding rows that a model needs for any text, for the first and for the last id.

        Added tokens beyond them, as some published tokenizers have, may go without.
        """
        named = [index for index in (self.bos_id, *self.eos_ids) if index is not None]
        return max(self.backend.words, *(index + 1 for index in named), 0)

    def info(self) -> TokenizerInfo:
        """Return what the manifest says about the tokenizer."""
        return TokenizerInfo(
            kind=self.backend.kind,
            files=self.files,
            bos_id=self.bos_id,
            eos_ids=self.eos_ids,
            chat_template=self.chat_template,
        )


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
    if (folder / TOKENIZER_FILE).is_file():
        return TOKENIZER_FILE
    source = conversion_source(folder)
    if source is None and (folder / SENTENCEPIECE_FILE).is_file():
        return SENTENCEPIECE_FILE
    return source


def _converted(folder: Path, config: JsonObject) -> str | None:
    """Return the text of a tokenizer.json that has to be made, None where none has to."""
    name = backend_file(folder)
    if name is None or name == TOKENIZER_FILE or name != conversion_source(folder):
        return None
    model_type = _optional(folder / CONFIG).get("model_type")
    return converted(folder, name, config, str(model_type))


def _package_files(folder: Path, made: str | None) -> tuple[str, ...]:
    present = {name for name in TOKENIZER_FILES if (folder / name).is_file()} - {*SOURCES}
    if made is not None:
        present = (present - {SENTENCEPIECE_FILE}) | {TOKENIZER_FILE}
    return tuple(name for name in TOKENIZER_FILES if name in present)


def write_tokenizer(tokenizer: Tokenizer, source: Path, target: Path) -> None:
    """Write a tokenizer's files to another folder."""
    for name in tokenizer.files:
        if name == TOKENIZER_FILE and tokenizer.made is not None:
            (target / name).write_text(tokenizer.made, "utf-8")
        else:
            shutil.copyfile(source / name, target / name)


def _backend(folder: Path, config: JsonObject, made: str | None) -> Backend:
    name = backend_file(folder)
    if name is None:
        raise _missing(folder)
    added = _added_tokens(folder, config)
    if name == SENTENCEPIECE_FILE and made is None:
        return SentencePieceBackend.open(folder / name, added, legacy=config.get("legacy") is True)
    return HuggingFaceBackend.open(folder / name, added, made)


def _missing(folder: Path) -> MissingError:
    others = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model.v3")
    found = [name for name in others if (folder / name).is_file()]
    found += sorted(path.name for path in folder.glob("*.tiktoken"))
    why = (
        "it has none of tokenizer.json, tokenizer.model, vocab.json with merges.txt, "
        + ", ".join(SOURCES[2:])
    )
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
