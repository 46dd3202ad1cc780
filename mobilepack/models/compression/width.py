"""Structural pruning of a block's width: coupled groups go or stay together.

As in LLM-Pruner (Ma et al. 2023, arXiv 2305.11627, section 3.1): a feed-forward channel is a row of
`gate` and `up` and a column of `down`; an attention group is a key and value head with every query
head that reads it, rows of `q`, `k` and `v` and columns of `o`. Every block keeps as many, because
config.json has one number for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mobilepack.errors import UsageError
from mobilepack.models.compression.select import Indices, Selection
from mobilepack.models.layer_spec import AttentionSpec, FeedForwardSpec, LayerSpec
from mobilepack.models.spec import DecoderSpec, parameter_shapes

if TYPE_CHECKING:
    import torch

COLUMNS = 32  # every width stays a multiple: the smallest group of 4-bit weights


@dataclass(frozen=True, slots=True)
class Width:
    """What a block keeps.

    Attributes:
        kv_heads: How many key and value heads.
        ffn: How many feed-forward channels.
    """

    kv_heads: int
    ffn: int


def kept_width(spec: DecoderSpec, share: float, group: int) -> Width:
    """Return what is left when a share of the width goes.

    Args:
        spec: The decoder.
        share: 0 to 1 (exclusive); rounded in favour of keeping.
        group: Columns that widths must be multiples of, where they were before.

    Raises:
        UsageError: The blocks are not all alike, or not a gated feed-forward behind attention.
    """
    mixer, ffn_spec = checked(spec)
    size = ffn_spec.size
    unit = group if group and size % group == 0 else COLUMNS
    ffn = math.ceil(size * (1 - share) / unit) * unit
    heads = math.ceil(mixer.n_kv_heads * (1 - share))
    repeats = mixer.n_heads // mixer.n_kv_heads
    while heads < mixer.n_kv_heads and heads * repeats * mixer.head_dim % COLUMNS:
        heads += 1
    return Width(heads, min(ffn, size))


def checked(spec: DecoderSpec) -> tuple[AttentionSpec, FeedForwardSpec]:
    """Return the first block's parts, whose sizes all blocks have.

    Raises:
        UsageError: As `kept_width`.
    """
    sizes = set()
    parts = [_parts(spec, layer) for layer in spec.layers]
    for mixer, ffn in parts:
        if mixer.alibi is not None or (mixer.qk_norm and mixer.qk_norm.scope != "head"):
            raise _refused(spec, "its heads have biases or norms of their own")
        sizes.add((mixer.n_heads, mixer.n_kv_heads, mixer.head_dim, ffn.size))
    if len(sizes) != 1:
        raise _refused(spec, "its blocks differ in size, and config.json has one number for all")
    return parts[0]


def _parts(spec: DecoderSpec, layer: LayerSpec) -> tuple[AttentionSpec, FeedForwardSpec]:
    mixer, ffn = layer.mixer, layer.ffn
    plain = isinstance(ffn, FeedForwardSpec) and ffn.gated and layer.shares is None
    if isinstance(mixer, AttentionSpec) and isinstance(ffn, FeedForwardSpec) and plain:
        return mixer, ffn
    raise _refused(spec, "its blocks are not attention with a gated feed-forward, each own")


def _refused(spec: DecoderSpec, why: str) -> UsageError:
    return UsageError(
        "width-of-family",
        f"cannot prune the width of a {spec.family} model",
        why=why,
        next="leave --prune width out; layers and wanda work for every family",
    )


def gates(spec: DecoderSpec) -> tuple[str, ...]:
    """Return the weights whose input channels are to be judged."""
    numbers = range(len(spec.layers))
    return tuple(f"layers.{i}.{name}.weight" for i in numbers for name in ("o", "down"))


def resized(spec: DecoderSpec, width: Width) -> DecoderSpec:
    """Return the decoder with blocks of another width."""
    layers = []
    for old in spec.layers:
        attention, ffn = _parts(spec, old)
        heads = width.kv_heads * (attention.n_heads // attention.n_kv_heads)
        mixer = replace(attention, n_heads=heads, n_kv_heads=width.kv_heads)
        layers.append(replace(old, mixer=mixer, ffn=replace(ffn, size=width.ffn)))
    return replace(spec, layers=tuple(layers))


def narrowed(
    spec: DecoderSpec, importance: Mapping[str, torch.Tensor], width: Width
) -> tuple[DecoderSpec, Selection, tuple[Indices, ...]]:
    """Return the narrower decoder, where its parameters come from, and the heads each block keeps.

    Args:
        spec: The decoder.
        importance: Of the input channels of the weights that `gates` names.
        width: What every block keeps.
    """
    (layer, _), ffn, smaller = checked(spec), width.ffn, resized(spec, width)
    repeats = layer.n_heads // layer.n_kv_heads
    rows: dict[str, Indices] = {}
    columns: dict[str, Indices] = {}
    heads = []
    for index in range(len(spec.layers)):
        block = f"layers.{index}."
        of_heads = importance[f"{block}o.weight"].view(layer.n_kv_heads, -1).sum(1)
        kept = _largest(of_heads, width.kv_heads)
        heads.append(kept)
        query = _spread(kept, repeats * layer.head_dim)
        channels = _largest(importance[f"{block}down.weight"], ffn)
        rows |= {f"{block}q": query, f"{block}gate": channels, f"{block}up": channels}
        rows |= dict.fromkeys((f"{block}k", f"{block}v"), _spread(kept, layer.head_dim))
        columns |= {f"{block}o.weight": query, f"{block}down.weight": channels}
    names = parameter_shapes(smaller)
    chosen = {n: rows[n.rpartition(".")[0]] for n in names if n.rpartition(".")[0] in rows}
    return smaller, Selection({n: n for n in names}, chosen, columns), tuple(heads)


def _largest(values: torch.Tensor, count: int) -> Indices:
    """Return the indices of the largest values in ascending order; ties: the lower index."""
    order = values.argsort(descending=True, stable=True)[:count]
    return tuple(sorted(int(index) for index in order))


def _spread(heads: Indices, width: int) -> Indices:
    """Return the channels of some heads that are each so wide."""
    return tuple(head * width + channel for head in heads for channel in range(width))
