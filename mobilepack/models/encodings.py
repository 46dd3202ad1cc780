"""Which storage a parameter gets: rules for predictions and for the lowering, without torch."""

from __future__ import annotations

import math
import re
from typing import Literal, cast

FLOAT_MATRICES = re.compile(
    r"positions\.weight|.*\.((shared_)?router|conv(_\w)?|(input|recurrent)_gate|[kv]_up)\.weight"
)
"""Matrices that are no linear maps or decide too much: they stay in float32."""

GROUP_SIZES = (128, 64, 32)  # XNNPACK wants multiples of 32 (xnnpack.h, qbint4 block size)
EMBEDDING_GROUP = 32


def linear_encoding(columns: int, group: int) -> tuple[str, int]:
    """Return the storage of a quantised linear map with so many input channels.

    Four bits in groups of `group` where the channels divide by it, else in the largest smaller
    group that divides them (64, then 32), else eight bits with one scale per row: XNNPACK has no
    4-bit kernel for other widths, and nothing may stay in float32 without saying so.
    """
    for size in GROUP_SIZES:
        if size <= group and columns % size == 0:
            return "int4", size
    return "int8", columns


def embedding_encoding(columns: int, kind: str, linear_group: int) -> tuple[str, int]:
    """Return the storage of an embedding table with so many channels.

    Args:
        columns: Channels of a token.
        kind: `fp32`, `8w` or `4w` as in a recipe. `4w` needs whole groups of 32 channels at least
            (ExecuTorch's `embedding_4bit`, 1.5.1); a table without them is stored as `8w`.
        linear_group: Group size of the linear maps, 0 if they are float32. The table takes the
            same, so that a tied head can share its integers.
    """
    if kind == "fp32":
        return "fp32", 0
    encoding, group = linear_encoding(columns, linear_group or EMBEDDING_GROUP)
    if kind == "4w" and encoding == "int4":
        return "embedding4", group
    return "int8", columns


CoremlEncoding = Literal["fp16", "8w", "4w", "4p"]
SMALLEST_COMPRESSED = 512
"""Numbers below which a parameter of a Core ML program is left in half precision."""


def coreml_encoding(
    name: str, shape: tuple[int, ...], linear: str, group: int, tied: bool
) -> CoremlEncoding:
    """Return how a Core ML program stores a parameter.

    Args:
        name: The decoder's name of the parameter.
        shape: Its shape.
        linear: `fp16`, `8w`, `4w` or `4p` as in a recipe.
        group: Rows that share a table of `4p`.
        tied: The head is the embedding table, which has 8 bits at least.
    """
    if linear == "fp16" or len(shape) == 1 or math.prod(shape) < SMALLEST_COMPRESSED:
        return "fp16"
    table = name in ("embed.weight", "positions.weight") or (tied and name == "head.weight")
    odd = shape[1] % 2 or (linear == "4p" and shape[0] % group)
    return "8w" if table or odd else cast(CoremlEncoding, linear)


def coreml_storage(
    name: str, shape: tuple[int, ...], linear: str, group: int, tied: bool
) -> tuple[CoremlEncoding, int]:
    """Return how a Core ML program stores a parameter, and its bytes with scales or tables."""
    kind, numbers = coreml_encoding(name, shape, linear, group, tied), math.prod(shape)
    if kind == "fp16":
        return kind, 2 * numbers
    own = 32 * (shape[0] // group) if kind == "4p" else 2 * shape[0]
    return kind, numbers * int(kind[0]) // 8 + own
