"""Read what the user asks to be done to the weights: `--prune`, `--prune-vocab`, `--calibrate`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mobilepack.contract.compression import Calibration, Compression, Sparsity
from mobilepack.contract.manifest import Recipe
from mobilepack.errors import UsageError
from mobilepack.models.moe_spec import MoeSpec
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.zoo.corpus import Document, train_documents

FORMS = "wanda:SHARE, wanda:N:M, layers:FIRST-LAST, layers:I,J,… or width:SHARE"
DOCUMENTS = 224  # of the embedded corpus; about 20,000 tokens, of which 16,384 are used
_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


@dataclass(frozen=True, slots=True)
class CompressionChoices:
    """What the user asked for.

    Attributes:
        prune: Values of `--prune`.
        vocabulary: File of `--prune-vocab`.
        calibrate: `gptq`, `awq` or `hqq`.
        text: File of `--calib`; None for the embedded corpus.
    """

    prune: tuple[str, ...] = ()
    vocabulary: Path | None = None
    calibrate: Calibration | None = None
    text: Path | None = None


NOTHING = CompressionChoices()


def compression_for(
    choices: CompressionChoices, spec: DecoderSpec, recipe: Recipe, *, reads_text: bool = False
) -> Compression | None:
    """Return what is to be done, None for nothing.

    Args:
        choices: What the user asked for.
        spec: The model.
        recipe: How weights are stored.
        reads_text: Something else looks at the text too.

    Raises:
        UsageError: A form is unknown, choices contradict each other or the model, or a file cannot
            be read.
    """
    if choices == NOTHING or (reads_text and choices == CompressionChoices(text=choices.text)):
        return None
    dropped: set[int] = set()
    width, sparsity = 0.0, None
    for text in choices.prune:
        kind, _, value = text.partition(":")
        if kind == "layers":
            dropped |= _layers(text, value, len(spec.layers))
        elif kind == "width" and not width:
            width = _share(text, value)
        elif kind == "wanda" and sparsity is None:
            sparsity = _sparsity(text, value)
        else:
            raise _unknown(text, "it is given twice" if kind in ("width", "wanda") else "")
    if choices.calibrate and recipe.linear != "8da4w":
        raise UsageError(
            "calibrated-fp32" if recipe.linear == "fp32" else "calibrated-recipe",
            f"cannot calibrate {recipe.linear} weights with {choices.calibrate}",
            why="calibration chooses 4-bit integers",
            next="leave --calibrate out, or choose --recipe 8da4w",
        )
    if (choices.calibrate or sparsity) and any(isinstance(i.ffn, MoeSpec) for i in spec.layers):
        raise UsageError(
            "calibrated-experts",
            f"cannot calibrate or zero the weights of this {spec.family} model",
            why="it has experts, each of which sees other tokens, and neither is done for them",
            next="leave --calibrate and --prune wanda out; layers and --prune-vocab work",
        )
    looks = bool(width or sparsity or choices.calibrate in ("gptq", "awq"))
    if choices.text is not None and not looks and not reads_text:
        raise UsageError(
            "unread-text",
            f"nothing would read {choices.text}",
            why="--calib is for --calibrate gptq and awq, --prune wanda and --prune width",
            next="leave --calib out",
        )
    return Compression(
        vocabulary_sha256=None if choices.vocabulary is None else text_sha256(choices.vocabulary),
        dropped_layers=tuple(sorted(dropped)),
        width=width,
        sparsity=sparsity,
        calibration=choices.calibrate,
        text_sha256=text_sha256(choices.text) if looks else None,
    )


def _layers(text: str, value: str, count: int) -> set[int]:
    dropped: set[int] = set()
    for part in value.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise _unknown(text)
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < count:
            raise _unknown(text, f"the model has blocks 0 to {count - 1}")
        dropped |= set(range(first, last + 1))
    if len(dropped) == count:
        raise _unknown(text, "no block would be left")
    return dropped


def _share(text: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        raise _unknown(text) from None
    if not 0 < share < 1:
        raise _unknown(text, "a share lies between 0 and 1")
    return share


def _sparsity(text: str, value: str) -> Sparsity:
    zeros, colon, of = value.partition(":")
    if not colon:
        return Sparsity(share=_share(text, value))
    if not (zeros.isdecimal() and of.isdecimal() and 0 < int(zeros) < int(of) <= 64):
        raise _unknown(text, "of N:M, N weights of every M neighbours become zero, 0 < N < M")
    return Sparsity(share=int(zeros) / int(of), zeros=int(zeros), of=int(of))


def _unknown(text: str, why: str = "") -> UsageError:
    return UsageError(
        "invalid-prune",
        f"cannot prune {text!r}",
        why=why or f"the forms are {FORMS}",
        next="for example --prune wanda:0.5, --prune layers:4-6 or --prune width:0.25",
    )


def text_sha256(path: Path | None) -> str:
    """Return the sha256 of a text file's content, or of the embedded corpus."""
    text = repr(corpus_documents()) if path is None else calibration_text(path)
    return hashlib.sha256(text.encode()).hexdigest()


def calibration_text(path: Path) -> str:
    """Return a text file.

    Raises:
        UsageError: The file cannot be read, is not UTF-8 or is empty.
    """
    try:
        text = path.read_text("utf-8")
        why = "" if text.strip() else "it is empty"
    except (OSError, UnicodeDecodeError) as err:
        text, why = "", str(err)
    if why:
        raise UsageError(
            "unreadable-text",
            f"cannot read the text {path}",
            why=why,
            next="name a plain text file in UTF-8",
        )
    return text


def corpus_documents() -> tuple[Document, ...]:
    """Return texts and chats of the embedded corpus's training half."""
    return tuple(islice(train_documents(0), DOCUMENTS))
