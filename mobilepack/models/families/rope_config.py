"""Rotary scaling as configs spell it, in transformers 5's form and the older one."""

from __future__ import annotations

from mobilepack.errors import near_misses
from mobilepack.models.config import ConfigReader, show
from mobilepack.models.spec import RopeKind, RopeSpec

DEFAULT_THETA = 10_000.0  # transformers 5.23 modeling_rope_utils.py: default_theta

# Numbers of every kind: (required, optional); transformers 5.23 `_validate_*_rope_parameters`.
_NUMBERS: dict[RopeKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ()),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor"), ()),
    "yarn": ((), ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")),
}


def read_rope(reader: ConfigReader, head_dim: int, max_positions: int) -> RopeSpec:
    """Read `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before).

    Where both are present `rope_scaling` wins, as in transformers 5.23
    `convert_rope_params_to_dict`; `rope_theta` inside wins over the one beside.
    """
    scaling, parameters = reader.child("rope_scaling"), reader.child("rope_parameters")
    outer_theta = reader.number("rope_theta", DEFAULT_THETA)
    rope = scaling or parameters
    if rope is None:
        _check_partial(reader)
        return RopeSpec("default", outer_theta, head_dim)
    _check_partial(reader)
    _check_partial(rope)
    kind = _kind(rope)
    theta = rope.number("rope_theta", outer_theta)
    if theta == 1 and kind == "yarn":
        rope.problem("rope_theta", "is 1; yarn needs another base")
    numbers = _numbers(reader, rope, kind, max_positions)
    rope.misspelt()
    return RopeSpec(kind, theta, head_dim, tuple(sorted(numbers.items())))


def _kind(rope: ConfigReader) -> RopeKind:
    key = "rope_type" if rope.has("rope_type") else "type"
    value = rope.get(key)
    if value is None:
        nested = sorted(k for k, v in rope.config.items() if isinstance(v, dict))
        if nested:
            rope.problem(nested[0], "positions that differ by layer are not supported yet")
        return "default"
    if not isinstance(value, str) or value not in _NUMBERS:
        names = [str(name) for name in _NUMBERS]
        rope.problem(key, f"is {show(value)}; {near_misses(str(value), names)}")
        return "default"
    return value


def _numbers(
    reader: ConfigReader, rope: ConfigReader, kind: RopeKind, max_positions: int
) -> dict[str, float]:
    required, optional = _NUMBERS[kind]
    numbers = {key: rope.number(key) for key in required}
    numbers |= {key: rope.number(key) for key in optional if rope.has(key)}
    if kind == "dynamic":
        # transformers 5.23 scales from max_position_embeddings, whatever the original length.
        numbers["max_position_embeddings"] = float(max_positions)
    if kind in ("llama3", "yarn"):
        numbers["original_max_position_embeddings"] = _original(reader, rope, max_positions)
    if kind == "llama3" and numbers["high_freq_factor"] <= numbers["low_freq_factor"]:
        rope.problem("high_freq_factor", "must be larger than low_freq_factor")
    if kind == "yarn":
        # Without a factor, the ratio of the lengths: transformers 5.23 _compute_yarn_parameters.
        ratio = max_positions / numbers["original_max_position_embeddings"]
        numbers["factor"] = rope.number("factor", ratio)
        numbers["truncate"] = float(rope.flag("truncate", True))
    return numbers


def _original(reader: ConfigReader, rope: ConfigReader, max_positions: int) -> float:
    """Return the trained length; a top-level key has priority (transformers 5.23, for Phi-3)."""
    key = "original_max_position_embeddings"
    inner = rope.integer(key, max_positions)
    return float(reader.integer(key, inner))


def _check_partial(reader: ConfigReader) -> None:
    """Refuse partial rotation: these families rotate whole heads, whatever the config says."""
    if reader.number("partial_rotary_factor", 1.0) != 1.0:
        reader.problem("partial_rotary_factor", "must be 1 in this family")
