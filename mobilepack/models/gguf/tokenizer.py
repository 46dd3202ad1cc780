"""A GGUF file's vocabulary as the tokenizer files of a checkpoint folder.

Byte-level vocabularies (`tokenizer.ggml.model` = gpt2) become tokenizer.json. SentencePiece
vocabularies (llama) become tokenizer.model again: the algorithm that llama.cpp runs on their scores
is SentencePiece's own, and its library and the runners on the phone read that file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mobilepack.errors import UsageError, near_misses
from mobilepack.models.config import Json
from mobilepack.models.gguf.pretokenizers import CUTS, Cuts, pre_tokenizer
from mobilepack.models.gguf.sentencepiece_model import model_proto

# gguf-py gguf/constants.py TokenType, SentencePiece's own numbers
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_GGML = "tokenizer.ggml."
TOKENIZER, SENTENCEPIECE, SETTINGS = "tokenizer.json", "tokenizer.model", "tokenizer_config.json"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the file says about its tokens.

    Attributes:
        model: `gpt2` or `llama`.
        tokens: By id.
        kinds: One of the numbers above for each.
        scores: Of every token; empty for `gpt2`.
        merges: `left right`, in their order; empty for `llama`.
        cuts: How text is cut; of no meaning for `llama`.
        begin: Id of the beginning, None if there is none.
        end: Id of the end.
        unknown: Id of the unknown token.
        add_begin: Whether a text gets the beginning in front.
        add_end: Whether it gets the end behind.
        prefix: Whether it gets a space in front.
        template: Of conversations.
    """

    model: str
    tokens: list[str]
    kinds: list[int]
    scores: list[float]
    merges: list[str]
    cuts: Cuts
    begin: int | None
    end: int | None
    unknown: int | None
    add_begin: bool
    add_end: bool
    prefix: bool
    template: str | None

    def named(self, index: int | None) -> str | None:
        """Return a token by its id."""
        return None if index is None else self.tokens[index]


def write_tokenizer(path: Path, metadata: Mapping[str, Json], folder: Path) -> None:
    """Write the tokenizer's files into a folder; a file without a vocabulary gets none.

    Raises:
        UsageError: The vocabulary is broken or of a kind that cannot be read.
    """
    if metadata.get(f"{_GGML}model") in (None, "no_vocab", "none"):
        return
    try:
        vocabulary = _read(metadata)
        if vocabulary.model == "gpt2":
            (folder / TOKENIZER).write_text(byte_level(vocabulary), "utf-8")
        else:
            proto = model_proto(
                vocabulary.tokens,
                vocabulary.scores,
                vocabulary.kinds,
                unknown=vocabulary.unknown or 0,
                prefix=vocabulary.prefix,
            )
            (folder / SENTENCEPIECE).write_bytes(proto)
    # The tokenizers library raises plain Exception for everything.
    except UsageError:
        raise
    except Exception as err:
        raise _invalid(path, str(err)) from err
    (folder / SETTINGS).write_text(json.dumps(_settings(vocabulary)), "utf-8")


def _read(metadata: Mapping[str, Json]) -> Vocabulary:
    """Return the vocabulary.

    Raises:
        ValueError: A part is missing or of the wrong type.
    """
    model = metadata.get(f"{_GGML}model")
    if model not in ("gpt2", "llama"):
        raise ValueError(f"its vocabulary is of the kind {model!r}; gpt2 and llama can be read")
    tokens = _texts(metadata, "tokens")
    kinds = _numbers(metadata, "token_type", len(tokens), NORMAL)
    cuts = _cuts(metadata) if model == "gpt2" else Cuts()
    begin, end, unknown = (
        _index(metadata, name, len(tokens)) for name in ("bos", "eos", "unknown")
    )
    template = metadata.get("tokenizer.chat_template")
    spm = model == "llama"
    return Vocabulary(
        model=str(model),
        tokens=tokens,
        kinds=[int(kind) for kind in kinds],
        scores=_numbers(metadata, "scores", len(tokens), 0.0) if spm else [],
        merges=[] if spm else _texts(metadata, "merges"),
        cuts=cuts,
        begin=1 if begin is None and spm and len(tokens) > 1 else begin,
        end=2 if end is None and spm and len(tokens) > 2 else end,
        unknown=unknown,
        add_begin=_flag(metadata, "add_bos_token", spm or cuts.begin),
        add_end=_flag(metadata, "add_eos_token", False),
        prefix=_flag(metadata, "add_space_prefix", spm),
        template=template if isinstance(template, str) and template else None,
    )


def _texts(metadata: Mapping[str, Json], name: str) -> list[str]:
    value = metadata.get(_GGML + name)
    if not isinstance(value, list) or not value:
        raise ValueError(f"it has no {_GGML}{name}")
    texts = [item for item in value if isinstance(item, str)]
    if len(texts) != len(value):
        raise ValueError(f"{_GGML}{name} is not a list of texts")
    return texts


def _numbers(metadata: Mapping[str, Json], name: str, count: int, usual: float) -> list[float]:
    value = metadata.get(_GGML + name)
    if value is None:
        return [usual] * count
    items = value if isinstance(value, list) else []
    numbers = [item for item in items if isinstance(item, (int, float))]
    if len(numbers) != count or len(items) != count:
        raise ValueError(f"{_GGML}{name} is not a list of {count} numbers, one per token")
    return [float(item) for item in numbers]


def _index(metadata: Mapping[str, Json], name: str, count: int) -> int | None:
    value = metadata.get(f"{_GGML}{name}_token_id")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise ValueError(f"{_GGML}{name}_token_id is {value!r}; there are {count} tokens")
    return value


def _flag(metadata: Mapping[str, Json], name: str, usual: bool) -> bool:
    value = metadata.get(_GGML + name)
    return value if isinstance(value, bool) else usual


def _cuts(metadata: Mapping[str, Json]) -> Cuts:
    name = metadata.get(f"{_GGML}pre")
    if name is None:
        raise ValueError(f"it does not say how text is cut: {_GGML}pre is missing")
    if not isinstance(name, str) or name not in CUTS:
        raise ValueError(f"{_GGML}pre is {name!r}; {near_misses(str(name), list(CUTS))}")
    return CUTS[name]


def byte_level(vocabulary: Vocabulary) -> str:
    """Return the text of a tokenizer.json; every token keeps its id.

    Raises:
        ValueError: A token appears twice.
        Exception: The library refuses the vocabulary.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers
    from tokenizers.models import BPE

    kept = {
        token: index
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind != UNUSED
    }
    if len(kept) != len(vocabulary.kinds) - vocabulary.kinds.count(UNUSED):
        raise ValueError("a token appears twice")
    merges = [_merge(text) for text in vocabulary.merges]
    made = Tokenizer(BPE(vocab=kept, merges=merges, ignore_merges=vocabulary.cuts.whole))
    made.pre_tokenizer = pre_tokenizer(vocabulary.cuts)
    made.decoder = decoders.ByteLevel()
    if vocabulary.cuts.nfc:
        made.normalizer = normalizers.NFC()
    for kind, add in ((CONTROL, made.add_special_tokens), (USER_DEFINED, made.add_tokens)):
        own = [token for token, index in kept.items() if vocabulary.kinds[index] == kind]
        add([AddedToken(token, normalized=False, special=kind == CONTROL) for token in own])
    _add_ends(made, vocabulary)
    return str(made.to_str())


def _merge(text: str) -> tuple[str, str]:
    at = text.find(" ", 1)
    if at < 0:
        raise ValueError(f"the merge {text!r} has no space")
    return text[:at], text[at + 1 :]


def _add_ends(made: object, vocabulary: Vocabulary) -> None:
    from tokenizers import Tokenizer, processors

    assert isinstance(made, Tokenizer)  # noqa: S101 (the library is imported late)
    ends = {
        "begin": vocabulary.begin if vocabulary.add_begin else None,
        "end": vocabulary.end if vocabulary.add_end else None,
    }
    named = {side: (vocabulary.tokens[i], i) for side, i in ends.items() if i is not None}
    if not named:
        return
    parts = [named.get("begin", ("",))[0], "$A", named.get("end", ("",))[0]]
    made.post_processor = processors.TemplateProcessing(
        single=[part for part in parts if part], special_tokens=[*named.values()]
    )


def _settings(vocabulary: Vocabulary) -> dict[str, Json]:
    """Return tokenizer_config.json."""
    found: dict[str, Json] = {
        "bos_token": vocabulary.named(vocabulary.begin),
        "eos_token": vocabulary.named(vocabulary.end),
        "unk_token": vocabulary.named(vocabulary.unknown),
        "chat_template": vocabulary.template,
    }
    if vocabulary.model == "llama":
        found |= {"add_bos_token": vocabulary.add_begin, "add_eos_token": vocabulary.add_end}
        found["legacy"] = False
    return {key: value for key, value in found.items() if value is not None}


def _invalid(path: Path, why: str) -> UsageError:
    return UsageError(
        "gguf-tokenizer",
        f"cannot read the tokenizer of {path}",
        why=why or "its library refuses the vocabulary",
        next="convert the model again with current llama.cpp, or give the original checkpoint",
    )
