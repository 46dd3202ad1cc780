"""How byte-level vocabularies cut a text, by `tokenizer.ggml.pre`.

The names are llama.cpp's (src/llama-vocab.cpp). What they stand for is written as in the published
tokenizer.json files that llama.cpp's converter knows them by (convert_hf_to_gguf_update.py),
including the composition of characters that llama.cpp leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from mobilepack.models.tokenizer_conversion import LLAMA3, QWEN

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

Step = Literal["gpt2", "digit", "digits", "punctuation"]


@dataclass(frozen=True, slots=True)
class Expression:
    """A regular expression; no token crosses the ends of a match."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Cuts:
    """What happens to a text before its bytes are merged.

    Attributes:
        steps: One after the other.
        nfc: Whether the text is brought into Unicode's composed form first.
        whole: A stretch that is a token as it stands is not split.
        begin: Whether the beginning id is added where the file does not say.
    """

    steps: tuple[Step | Expression, ...] = ("gpt2",)
    nfc: bool = False
    whole: bool = False
    begin: bool = False


_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_NO_WORD = r"[^\r\n\p{L}\p{N}]?"
_AFTER = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


def _cased(ending: str, digits: str) -> Expression:
    """Return the expression of tekken and o200k, which parts words where small letters end."""
    first = f"{_NO_WORD}[{_UPPER}]*[{_LOWER}]+{ending}"
    second = f"{_NO_WORD}[{_UPPER}]+[{_LOWER}]*{ending}"
    return Expression(f"{first}|{second}|{digits}{_AFTER}")


def _expression(pattern: str | None) -> Expression:
    assert pattern is not None  # noqa: S101 (for the type checker)
    return Expression(pattern)


_DIGIT = Cuts(("digit", "gpt2"))
_NEOX = Cuts(nfc=True)
_LLAMA3 = Cuts((_expression(LLAMA3.pattern),), whole=True, begin=True)
_QWEN2 = Cuts((_expression(QWEN.pattern),), nfc=True)
_SAME_AS_LLAMA3 = Cuts((_expression(LLAMA3.pattern),))
_BLOOM = Cuts((Expression(r" ?[^(\s|[.,!?…。，、।۔،])]+"),))
_TEKKEN = Cuts((_cased("", r"\p{N}"),), whole=True, begin=True)
_O200K = Cuts((_cased(_ENGLISH, r"\p{N}{1,3}"),))
_FALCON = Cuts(("punctuation", "gpt2", "digits", Expression("[0-9][0-9][0-9]")))
_DEEPSEEK_CODER = Cuts(
    (
        Expression("[\r\n]"),
        Expression(r"\s?\p{L}+"),
        Expression(r"\s?\p{P}+"),
        Expression("[一-龥ࠀ-一가-퟿]+"),
        "digit",
    )
)

CUTS: Mapping[str, Cuts] = MappingProxyType(
    dict.fromkeys(("gpt-2", "phi-2", "jais", "roberta-bpe", "exaone4"), Cuts())
    | dict.fromkeys(("mpt", "olmo"), _NEOX)
    | dict.fromkeys(("starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b"), _DIGIT)
    | {"command-r": Cuts(_DIGIT.steps, nfc=True)}
    | dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "lfm2"), _LLAMA3)
    | dict.fromkeys(("smaug-bpe", "dbrx"), _SAME_AS_LLAMA3)
    | dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2"), _QWEN2)
    | {"grok-2": Cuts(_QWEN2.steps)}
    | dict.fromkeys(("bloom", "gpt3-finnish", "poro-chat"), _BLOOM)
    | {"tekken": _TEKKEN, "gpt-4o": _O200K, "falcon": _FALCON}
    | {"deepseek-coder": _DEEPSEEK_CODER}
)
"""By the name in the file."""


def pre_tokenizer(cuts: Cuts) -> PreTokenizer:
    """Return the library's object, which ends with the bytes' characters."""
    from tokenizers import Regex, pre_tokenizers

    steps: list[PreTokenizer] = []
    for step in cuts.steps:
        if isinstance(step, Expression):
            steps.append(pre_tokenizers.Split(Regex(step.pattern), behavior="isolated"))
        elif step == "gpt2":
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
        elif step == "punctuation":
            steps.append(pre_tokenizers.Punctuation("contiguous"))
        else:
            steps.append(pre_tokenizers.Digits(individual_digits=step == "digit"))
    if "gpt2" not in cuts.steps:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(steps)
