"""Where the decoder's parameters lie in a checkpoint, from one table per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mobilepack.models.layer_spec import LayerSpec
from mobilepack.models.spec import DecoderSpec, TensorSource, parameter_shapes

Rows = tuple[int, tuple[tuple[int, int], ...]]
"""First row and `TensorSource.pick`."""


@dataclass(frozen=True, slots=True)
class At:
    """A module's place.

    Attributes:
        key: Name without `.weight` and `.bias`; `{i}` stands for the block's index, and `{head}`
            for the head's where every head has a tensor of its own.
        rows: Given the module's name and its block, which rows of a fused tensor are its own.
        transposed: Matrices are stored as `[in, out]`.
        bare: The key is the whole name: no `.weight` follows.
    """

    key: str
    rows: Callable[[str, LayerSpec], Rows] | None = None
    transposed: bool = False
    bare: bool = False


Names = Mapping[str, str | At]


def stacked(name: str, layer: LayerSpec) -> Rows:
    """Return the rows where all queries come first, then the keys, then the values; gate, up."""
    if name in ("gate", "up"):
        return (0 if name == "gate" else layer.ffn.size), ()
    return {"q": 0, "k": layer.mixer.q_size, "v": layer.mixer.q_size + layer.mixer.kv_size}[
        name
    ], ()


def by_group(name: str, layer: LayerSpec) -> Rows:
    """Return the rows where every key-value head has its queries, key and value together."""
    spec = layer.mixer
    groups, dim = spec.n_heads // spec.n_kv_heads, spec.head_dim
    start = {"q": 0, "k": groups, "v": groups + 1}[name] * dim
    size = groups * dim if name == "q" else dim
    return start, ((spec.n_kv_heads, (groups + 2) * dim), (size, 1))


def named_sources(names: Names, spec: DecoderSpec) -> dict[str, TensorSource]:
    """Return the source of every parameter, with the factors that are multiplied in (`spec.py`)."""
    own = [index for index, layer in enumerate(spec.layers) if layer.shares is None]
    return {
        name: _source(names, spec, own, name, shape)
        for name, shape in parameter_shapes(spec).items()
    }


def _source(
    names: Names, spec: DecoderSpec, own: list[int], name: str, shape: tuple[int, ...]
) -> TensorSource:
    module, _, kind = name.rpartition(".")
    scale, offset = _factors(spec, module, kind)
    if not module.startswith("layers."):
        tied = module == "head" and spec.tied_head and kind == "weight"
        at = _at(names["embed" if tied else module])
        key = at.key if at.bare else f"{at.key}.{kind}"
        return TensorSource(key, shape, scale=scale, offset=offset)
    _, index, part = module.split(".", 2)
    layer, at = spec.layers[int(index)], _at(names[part])
    start, pick = at.rows(part, layer) if at.rows else (0, ())
    heads = layer.mixer.n_heads if part[0] == "q" else layer.mixer.n_kv_heads
    count = heads if "{head}" in at.key else 1
    place = own.index(int(index))
    end = "" if at.bare else f".{kind}"
    keys = [at.key.format(i=place, head=head) + end for head in range(count)]
    return TensorSource(
        keys[0],
        shape,
        start=start,
        transposed=at.transposed and len(shape) == 2,
        pick=pick,
        more=tuple(keys[1:]),
        scale=scale,
        offset=offset,
    )


def _at(entry: str | At) -> At:
    return At(entry) if isinstance(entry, str) else entry


def _factors(spec: DecoderSpec, module: str, kind: str) -> tuple[float, float]:
    """Return factor and summand of a parameter's numbers."""
    part = module.rpartition(".")[2]
    if module == "norm" and spec.norm is not None:
        offset = spec.norm.offset if kind == "weight" else 0.0
        return spec.logit_scale, offset * spec.logit_scale
    if not module.startswith("layers."):
        return 1.0, 0.0
    layer = spec.layers[int(module.split(".")[1])]
    if part in ("o", "down"):
        return spec.residual_scale, 0.0
    if kind != "weight" or not part.endswith("_norm"):
        return 1.0, 0.0
    if part in ("q_norm", "k_norm"):
        return 1.0, layer.mixer.qk_norm.norm.offset if layer.mixer.qk_norm else 0.0
    return 1.0, layer.norm.offset
