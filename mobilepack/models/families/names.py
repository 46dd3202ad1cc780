"""Where the decoder's parameters lie in a checkpoint, from one table per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mobilepack.models.layer_spec import AttentionSpec, FeedForwardSpec, LayerSpec
from mobilepack.models.moe_spec import MoeSpec
from mobilepack.models.spec import DecoderSpec, TensorSource, parameter_shapes

Rows = tuple[int, tuple[tuple[int, int], ...]]
"""First row and `TensorSource.pick`."""


@dataclass(frozen=True, slots=True)
class At:
    """A module's place.

    Attributes:
        key: Name without `.weight` and `.bias` (or with `{kind}` for them); `{i}` stands for the
            block's index, and `{head}` or `{expert}` for the head's or expert's where every one
            has a tensor of its own.
        rows: Given the module's name and its block, which rows of a fused tensor are its own.
        transposed: Matrices are stored as `[in, out]`.
        bare: The key is the whole name: no `.weight` follows.
        stored: Given the module's name, its block and the shape of the parameter, the shape of the
            whole tensor, where it has other axes.
    """

    key: str
    rows: Callable[[str, LayerSpec], Rows] | None = None
    transposed: bool = False
    bare: bool = False
    stored: Callable[[str, LayerSpec, tuple[int, ...]], tuple[int, ...]] | None = None


Entry: TypeAlias = str | At
Names = Mapping[str, Entry | Callable[[LayerSpec], Entry]]
"""A place by the module's name; a function where it depends on the block."""


def attention(layer: LayerSpec) -> AttentionSpec:
    """Return a block's mixer, which must be an attention."""
    assert isinstance(layer.mixer, AttentionSpec)  # noqa: S101 (for the type checker)
    return layer.mixer


def stacked(name: str, layer: LayerSpec) -> Rows:
    """Return the rows where all queries come first, then the keys, then the values; gate, up."""
    if name in ("gate", "up"):
        assert isinstance(layer.ffn, FeedForwardSpec)  # noqa: S101 (for the type checker)
        return (0 if name == "gate" else layer.ffn.size), ()
    mixer = attention(layer)
    return {"q": 0, "k": mixer.q_size, "v": mixer.q_size + mixer.kv_size}[name], ()


def by_group(name: str, layer: LayerSpec) -> Rows:
    """Return the rows where every key-value head has its queries, key and value together."""
    spec = attention(layer)
    groups, dim = spec.n_heads // spec.n_kv_heads, spec.head_dim
    start = {"q": 0, "k": groups, "v": groups + 1}[name] * dim
    size = groups * dim if name == "q" else dim
    return start, ((spec.n_kv_heads, (groups + 2) * dim), (size, 1))


SCALED = ("o", "down", "experts_down", "shared_down")
"""Maps that write to the residual stream."""


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
    layer = spec.layers[int(index)]
    at = _at(names[part], layer)
    start, pick = at.rows(part, layer) if at.rows else (0, ())
    count = _tensors(at, part, layer)
    place = own.index(int(index))
    end = "" if at.bare else f".{kind}"
    keys = [at.key.format(i=place, head=one, expert=one, kind=kind) + end for one in range(count)]
    return TensorSource(
        keys[0],
        shape,
        start=start,
        transposed=at.transposed and len(shape) == 2,
        pick=pick,
        more=tuple(keys[1:]),
        scale=scale,
        offset=offset,
        stored=at.stored(part, layer, shape) if at.stored else (),
    )


def _tensors(at: At, part: str, layer: LayerSpec) -> int:
    """Return how many tensors make up a module."""
    if "{expert}" in at.key and isinstance(layer.ffn, MoeSpec):
        return layer.ffn.experts
    if "{head}" not in at.key:
        return 1
    mixer = attention(layer)
    return mixer.n_heads if part[0] == "q" else mixer.n_kv_heads


def _at(entry: Entry | Callable[[LayerSpec], Entry], layer: LayerSpec | None = None) -> At:
    found = entry(layer) if callable(entry) and layer is not None else entry
    if callable(found):
        raise TypeError(f"{found} is for modules of blocks")
    return At(found) if isinstance(found, str) else found


def _factors(spec: DecoderSpec, module: str, kind: str) -> tuple[float, float]:
    """Return factor and summand of a parameter's numbers."""
    part = module.rpartition(".")[2]
    if module == "norm" and spec.norm is not None:
        offset = spec.norm.offset if kind == "weight" else 0.0
        return spec.logit_scale, offset * spec.logit_scale
    if not module.startswith("layers."):
        return 1.0, 0.0
    layer = spec.layers[int(module.split(".")[1])]
    if part in SCALED:
        return spec.residual_scale, 0.0
    if kind != "weight" or not part.endswith("_norm") or part == "gated_norm":
        return 1.0, 0.0
    if part in ("q_norm", "k_norm"):
        qk_norm = attention(layer).qk_norm
        return 1.0, 0.0 if qk_norm is None else qk_norm.norm.offset
    return 1.0, layer.norm.offset
