"""Mamba 2: nothing but state-space models, one after the other."""

from __future__ import annotations

import math

from mobilepack.models.config import ConfigReader, show
from mobilepack.models.families.base import ConfiguredFamily
from mobilepack.models.families.convolutions import one_channel
from mobilepack.models.families.names import At, Names, Rows
from mobilepack.models.families.reading import (
    Defaults,
    bos_id,
    eos_ids,
    layer_count,
    read_activation,
    uniform,
)
from mobilepack.models.layer_spec import LayerSpec, NormSpec
from mobilepack.models.recurrent_spec import ConvSpec, Mamba2Spec
from mobilepack.models.spec import DecoderSpec

MAX_POSITIONS = 1 << 20
"""The architecture has no limit; a program's tables need one."""

_MIXER = "backbone.layers.{i}.mixer."


def _spec(layer: LayerSpec) -> Mamba2Spec:
    assert isinstance(layer.mixer, Mamba2Spec)  # noqa: S101 (for the type checker)
    return layer.mixer


def _rows(name: str, layer: LayerSpec) -> Rows:
    """Return where z, x, b, c and dt begin in the fused map; x, b and c in the convolution."""
    spec = _spec(layer)
    kind, part = name.split("_")
    shared = spec.groups * spec.state
    starts = {"z": -spec.inner, "x": 0, "b": spec.inner, "c": spec.inner + shared}
    starts["dt"] = starts["c"] + shared
    return starts[part] + (spec.inner if kind == "in" else 0), ()


def _stored(name: str, layer: LayerSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    spec = _spec(layer)
    channels = spec.inner + 2 * spec.groups * spec.state
    return one_channel(name, layer, (channels, *shape[1:]))


_NAMES: Names = {
    "embed": "backbone.embeddings",
    "norm": "backbone.norm_f",
    "head": "lm_head",
    "attn_norm": "backbone.layers.{i}.norm",
    **{f"in_{name}": At(_MIXER + "in_proj", _rows) for name in ("z", "x", "b", "c", "dt")},
    **{f"conv_{name}": At(_MIXER + "conv1d", _rows, stored=_stored) for name in "xbc"},
    "dt_bias": At(_MIXER + "dt_bias", bare=True),
    "a_log": At(_MIXER + "A_log", bare=True),
    "d": At(_MIXER + "D", bare=True),
    "gated_norm": _MIXER + "norm",
    "o": _MIXER + "out_proj",
}


def _describe(reader: ConfigReader) -> DecoderSpec:
    hidden = reader.integer("hidden_size", 4096)
    heads, dim = reader.integer("num_heads", 128), reader.integer("head_dim", 64)
    groups, eps = reader.integer("n_groups", 8), reader.number("layer_norm_epsilon", 1e-5)
    expand = reader.number("expand", 2.0)
    if int(expand * hidden) != heads * dim:
        reader.problem("num_heads", f"times head_dim is {heads * dim}, not expand * hidden_size")
    if heads % groups:
        reader.problem("n_groups", f"is {groups}; num_heads ({heads}) is no multiple")
    for key, value in (("rms_norm", True), ("norm_before_gate", False)):
        reader.fixed(key, value)
    taps = reader.integer("conv_kernel", 4, minimum=2)
    mixer = Mamba2Spec(
        n_heads=heads,
        head_dim=dim,
        groups=groups if heads % groups == 0 else 1,
        state=reader.integer("state_size", 128),
        conv=ConvSpec(taps, reader.flag("use_conv_bias", True)),
        eps=eps,
        activation=read_activation(reader, "hidden_act", "silu"),
        dt_limits=_limits(reader),
        bias=reader.flag("use_bias", False),
    )
    norm, defaults = NormSpec("rms", eps), Defaults(MAX_POSITIONS, bos_id=0, eos_id=2)
    return DecoderSpec(
        family="mamba2",
        vocab_size=reader.integer("vocab_size", 32_768),
        hidden_size=hidden,
        layers=uniform(LayerSpec(mixer, None, norm, "mixer"), layer_count(reader)),
        norm=norm,
        tied_head=reader.flag("tie_word_embeddings", False),
        max_positions=MAX_POSITIONS,
        bos_id=bos_id(reader, defaults),
        eos_ids=eos_ids(reader, defaults),
    )


def _limits(reader: ConfigReader) -> tuple[float, float]:
    """Read `time_step_limit`; infinity is a constant of Python's JSON, or absent."""
    value = reader.get("time_step_limit")
    if value is None:
        return 0.0, math.inf
    if isinstance(value, list) and len(value) == 2:
        low, high = (_number(item) for item in value)
        if low is not None and high is not None and low < high:
            return low, high
    reader.problem("time_step_limit", f"is {show(value)}; two numbers are needed, least first")
    return 0.0, math.inf


def _number(item: object) -> float | None:
    if isinstance(item, dict):  # transformers 5 spells infinity {"__float__": "Infinity"}
        item = {"Infinity": math.inf}.get(str(item.get("__float__")))
    numeric = isinstance(item, (int, float)) and not isinstance(item, bool)
    return float(item) if numeric else None  # type: ignore[arg-type]


FAMILY = ConfiguredFamily(
    ("mamba2",),
    _describe,
    _NAMES,
    renamed=((("backbone.", ""),),),
    harmless="time_step_(rank|min|max|floor)|rescale_prenorm_residual|residual_in_fp32|chunk_size"
    "|fused_add_norm|ssm_cfg|attn_\\w+",
)
