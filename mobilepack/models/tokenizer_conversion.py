"""Vocabularies that come without tokenizer.json, turned into one.

Three kinds are about: `vocab.json` with `merges.txt` (GPT-2 and its kin, Qwen2), tiktoken's lines
of base64 and rank (Qwen 1, the first Llama 3), and Mistral's tekken.json. All are byte-level BPE
and differ in how text is cut before merging, which the files of the first two do not say: the
tables below do. The result is what a package carries, so that the official runners read it too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.errors import UsageError
from mobilepack.models.config import Json, JsonObject, read_json

if TYPE_CHECKING:
    import tokenizers

VOCAB, MERGES, TEKKEN = "vocab.json", "merges.txt", "tekken.json"
TIKTOKEN_NAMES = ("qwen.tiktoken", "tiktoken.model", "tokenizer.model")
SOURCES = (VOCAB, MERGES, TEKKEN, *TIKTOKEN_NAMES[:2])
"""Files that this module reads, beside a tokenizer.model that is tiktoken's."""

_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d{1,9}")
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN_NAMED = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)
"""Of a tekken.json that names none (mistral-common 1.13 `Tekkenizer.DEPRECATED_SPECIAL_TOKENS`)."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """What happens to a text before its bytes are merged.

    Attributes:
        pattern: Regular expression of the stretches that no token crosses; None: GPT-2's.
        nfc: Whether the text is brought into Unicode's composed form first.
        special: Control tokens that follow the vocabulary where no other file names any.
        bos: Control token that the models were trained to see first.
    """

    pattern: str | None = None
    nfc: bool = False
    special: tuple[str, ...] = ()
    bos: str | None = None


GPT2 = Cutting()
# Qwen/Qwen-1_8B tokenization_qwen.py; Qwen2 kept the expression (transformers 5.23).
QWEN = Cutting(
    rf"{_WORDS}|\p{{N}}{_REST}",
    nfc=True,
    special=(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *(f"<|extra_{i}|>" for i in range(205)),
    ),
)
# meta-llama/llama-models llama3/tokenizer.py; the names are those of the 3.1 tokenizer.json.
LLAMA3 = Cutting(
    rf"{_WORDS}|\p{{N}}{{1,3}}{_REST}",
    special=(
        *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>"),
        *("<|reserved_special_token_1|>", "<|finetune_right_pad_id|>"),
        *("<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>"),
        *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
        *(f"<|reserved_special_token_{i}|>" for i in range(3, 248)),
    ),
    bos="<|begin_of_text|>",
)
_CLASSES = {
    "GPT2Tokenizer": GPT2,
    "CodeGenTokenizer": GPT2,
    "Qwen2Tokenizer": QWEN,
}
_MODEL_TYPES = {"qwen2": QWEN, "qwen2_moe": QWEN, "qwen3": QWEN, "qwen3_moe": QWEN}


def conversion_source(folder: Path) -> str | None:
    """Return the file of a folder that can be converted, None if there is none."""
    if (folder / VOCAB).is_file() and (folder / MERGES).is_file():
        return VOCAB
    names = (TEKKEN, *TIKTOKEN_NAMES)
    return next((name for name in names if _convertible(folder / name)), None)


def _convertible(path: Path) -> bool:
    return path.is_file() and (path.name != "tokenizer.model" or is_tiktoken(path))


def is_tiktoken(path: Path) -> bool:
    """Tell whether a file is a list of base64 and rank, as tiktoken writes it."""
    with path.open("rb") as file:
        return _RANK_LINE.fullmatch(file.readline(4096).rstrip()) is not None


def converted(folder: Path, source: str, config: JsonObject, model_type: str) -> str:
    """Return the text of a tokenizer.json.

    Args:
        folder: Where the files are.
        source: What `conversion_source` found there.
        config: tokenizer_config.json as decoded.
        model_type: Of config.json; decides the cutting where `tokenizer_class` does not.

    Raises:
        UsageError: A file is broken, or belongs to a tokenizer that is not known here.
    """
    path = folder / source
    try:
        if source == VOCAB:
            return _from_merges(folder, config, _cutting(path, config, model_type))
        if source == TEKKEN:
            return _from_tekken(path)
        return _from_ranks(path, QWEN if source == "qwen.tiktoken" else LLAMA3, config)
    # The tokenizers library raises plain Exception for everything.
    except UsageError:
        raise
    except Exception as err:
        raise UsageError(
            "invalid-tokenizer",
            f"cannot load the tokenizer {path}",
            why=str(err) or "the file is not what its name says",
            next="download the tokenizer files again, all from the same revision",
        ) from err


def _cutting(path: Path, config: JsonObject, model_type: str) -> Cutting:
    name = config.get("tokenizer_class")
    if not isinstance(name, str):
        return _MODEL_TYPES.get(model_type, GPT2)
    found = _CLASSES.get(name.removesuffix("Fast"))
    if found is None:
        raise UsageError(
            "tokenizer-class",
            f"cannot read {path}: tokenizer_class {name!r} has no rule here",
            why=f"vocab.json does not say how text is cut; known are {', '.join(_CLASSES)}",
            next="make a tokenizer.json: transformers' AutoTokenizer, save_pretrained",
        )
    return found


def _from_merges(folder: Path, config: JsonObject, cutting: Cutting) -> str:
    from tokenizers.models import BPE

    model = BPE.from_file(str(folder / VOCAB), str(folder / MERGES))
    named = config.get("bos_token")
    bos = named.get("content") if isinstance(named, dict) else named
    if config.get("add_bos_token") is True and isinstance(bos, str):  # OPT's, with GPT-2's files
        cutting = replace(cutting, bos=bos)
    prefix = config.get("add_prefix_space") is True
    return str(_assembled(model, cutting, (), prefix=prefix).to_str())


def _from_ranks(path: Path, cutting: Cutting, config: JsonObject) -> str:
    ranks = dict(_rank_lines(path))
    named = config.get("added_tokens_decoder")
    special = () if isinstance(named, dict) and named else cutting.special
    return str(_assembled(_bpe(ranks), cutting, special).to_str())


def _from_tekken(path: Path) -> str:
    """Mistral's own format: the ranks follow the control tokens (mistral-common 1.13)."""
    data = read_json(path)
    config, entries = data.get("config"), data.get("vocab")
    if not isinstance(config, dict) or not isinstance(entries, list):
        raise ValueError("it has no config and vocab")
    size, first = config.get("default_vocab_size"), config.get("default_num_special_tokens")
    pattern = config.get("pattern")
    if not (isinstance(size, int) and isinstance(first, int) and isinstance(pattern, str)):
        raise ValueError("its config lacks default_vocab_size, default_num_special_tokens, pattern")
    tokens = [_token_bytes(entry) for entry in entries[: max(0, size - first)]]
    special = _tekken_special(data.get("special_tokens"), first)
    ranks = {token: first + rank for rank, token in enumerate(tokens)}
    model = _bpe(ranks, {token: index for index, token in enumerate(special)})
    return str(_assembled(model, Cutting(pattern, bos="<s>"), special).to_str())


def _token_bytes(entry: Json) -> bytes:
    text = entry.get("token_bytes") if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise ValueError("an entry of vocab has no token_bytes")
    return base64.b64decode(text, validate=True)


def _tekken_special(listed: Json, count: int) -> list[str]:
    named = dict(enumerate(_TEKKEN_NAMED))
    if isinstance(listed, list):
        items = [item for item in listed if isinstance(item, dict)]
        named = {int(str(item["rank"])): str(item["token_str"]) for item in items}
    return [named.get(index, f"<SPECIAL_{index}>") for index in range(count)]


def _rank_lines(path: Path) -> Iterator[tuple[bytes, int]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:
            continue
        token, _, rank = line.partition(b" ")
        try:
            yield base64.b64decode(token, validate=True), int(rank)
        except (binascii.Error, ValueError) as err:
            raise ValueError(f"line {number} is not a base64 token and its rank") from err


def _bpe(
    ranks: Mapping[bytes, int], special: Mapping[str, int] | None = None
) -> tokenizers.models.Model:
    """Return the model of a ranked vocabulary.

    tiktoken merges the neighbours whose joint token has the lowest rank, so every way to split a
    token into two others is a merge, in the order of the whole tokens' ranks; and a stretch that
    is a token as it stands is never split (`ignore_merges`).
    """
    from tokenizers.models import BPE

    letters = _byte_letters()
    written = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [
        (written[left], written[right])
        for token in sorted(ranks, key=ranks.__getitem__)
        for left, right in _splits(token, ranks)
    ]
    vocab = {written[token]: rank for token, rank in ranks.items()} | dict(special or {})
    return BPE(vocab=vocab, merges=merges, ignore_merges=True)


def _splits(token: bytes, ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
    known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
    return sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _byte_letters() -> Sequence[str]:
    """Return the character that stands for each byte in a byte-level vocabulary.

    Printable Latin-1 stands for itself, the rest follows from U+0100 on (GPT-2 encoder.py).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _assembled(
    model: tokenizers.models.Model,
    cutting: Cutting,
    special: Iterable[str],
    *,
    prefix: bool = False,
) -> tokenizers.Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors

    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if cutting.pattern is not None:
        cut = pre_tokenizers.Split(Regex(cutting.pattern), behavior="isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([cut, level])
    if cutting.nfc:
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(special))
    if cutting.bos is not None:
        index = made.token_to_id(cutting.bos)
        if index is None:
            raise ValueError(f"its first token {cutting.bos!r} is not in the vocabulary")
        made.post_processor = processors.TemplateProcessing(
            single=f"{cutting.bos} $A", special_tokens=[(cutting.bos, index)]
        )
    return made
