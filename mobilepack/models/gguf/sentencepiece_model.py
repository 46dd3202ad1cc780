"""Write a SentencePiece model from tokens and scores.

Protocol buffers' wire format is simple enough for the four messages of sentencepiece_model.proto
(google/sentencepiece 0.2) that a vocabulary needs, and its library does not write them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_BPE = 2  # TrainerSpec.ModelType
_SPACE = "▁"  # U+2581, how SentencePiece writes a space


def model_proto(
    tokens: Sequence[str],
    scores: Sequence[float],
    kinds: Sequence[int],
    *,
    unknown: int,
    prefix: bool,
) -> bytes:
    """Return the content of a tokenizer.model.

    Args:
        tokens: By id; spaces in them are written as SentencePiece does.
        scores: Higher ones are merged first.
        kinds: SentencePiece's types.
        unknown: Id of the one unknown token, which every model must have.
        prefix: Whether texts get a space in front.
    """
    pieces = b"".join(
        _message(1, _piece(token, score, _kind(kind, index == unknown)))
        for index, (token, score, kind) in enumerate(zip(tokens, scores, kinds, strict=True))
    )
    # trainer_spec: model_type = 3, byte_fallback = 35, unk_id = 40, and bos_id, eos_id, pad_id = 41
    # to 43: begin and end are tokenizer_config.json's business, -1 means none.
    trainer = _number(3, _BPE) + _number(35, int(kinds.count(_BYTE) == 256)) + _number(40, unknown)
    trainer += b"".join(_number(field, 2**64 - 1) for field in (41, 42, 43))
    # normalizer_spec: name = 1, add_dummy_prefix = 3, remove_extra_whitespaces = 4,
    # escape_whitespaces = 5
    normaliser = _message(1, b"identity") + _number(3, int(prefix)) + _number(4, 0) + _number(5, 1)
    return pieces + _message(2, trainer) + _message(3, normaliser)


def _kind(kind: int, unknown: bool) -> int:
    """Return a type: exactly one token is unknown, whatever the file says of others."""
    if unknown:
        return _UNKNOWN
    return _CONTROL if kind == _UNKNOWN else kind


def _piece(token: str, score: float, kind: int) -> bytes:
    text = token.replace(" ", _SPACE) if kind in (_NORMAL, _USER_DEFINED) else token
    single = b"\x15" + struct.pack("<f", score)  # field 2, 32 bits
    return _message(1, text.encode()) + single + _number(3, kind)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
