"""Rotary scaling as configs spell it, in transformers 5's form and the older one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mobilepack.errors import near_misses
from mobilepack.models.config import ConfigReader, show
from mobilepack.models.families.reading import even
from mobilepack.models.layer_spec import RopeKind, RopeSpec

# Numbers of every kind: (required, optional); transformers 5.23 `_validate_*_rope_parameters`.
_NUMBERS: dict[RopeKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ()),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor"), ()),
    "yarn": ((), ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")),
    "longrope": ((), ("attention_factor", "short_mscale", "long_mscale")),
}


@dataclass(frozen=True, slots=True)
class RopeHabits:
    """How a family rotates where its config is silent.

    Attributes:
        theta: Base of the wavelengths.
        partial: Share of each head's channels that is rotated; None: all, and a config that says
            something else is wrong.
        interleaved: Whether neighbours form the pairs.
        renamed: Kinds that this family calls by another name.
    """

    theta: float = 10_000.0
    partial: float | None = None
    interleaved: bool = False
    renamed: Mapping[str, RopeKind] = field(default_factory=dict)


HALVES = RopeHabits()


def read_rope(
    reader: ConfigReader, head_dim: int, max_positions: int, habits: RopeHabits = HALVES
) -> RopeSpec:
    """Read `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before).

    Where both are present `rope_scaling` wins, as in transformers 5.23
    `convert_rope_params_to_dict`; numbers inside win over those beside.
    """
    rope = reader.child("rope_scaling")
    if rope is None:
        rope = reader.child("rope_parameters")
    reader.get("rope_parameters")
    theta = reader.number("rope_theta", habits.theta)
    reader.get("original_max_position_embeddings")  # of no meaning to most kinds
    share = _share(reader, habits.partial)
    if rope is None:
        dim = _rotated(reader, head_dim, share, habits.partial)
        return RopeSpec("default", theta, dim, interleaved=habits.interleaved)
    if rope.has("partial_rotary_factor"):
        share = _share(rope, habits.partial)
    dim = _rotated(rope, head_dim, share, habits.partial)
    return scaled_rope(reader, rope, (theta, dim, max_positions), habits)


def scaled_rope(
    reader: ConfigReader,
    rope: ConfigReader,
    sizes: tuple[float, int, int],
    habits: RopeHabits = HALVES,
) -> RopeSpec:
    """Read one object of rotary parameters.

    Args:
        reader: Of the config around it.
        rope: Of the object.
        sizes: Theta where the object has none, rotated channels, longest sequence.
        habits: Of the family.
    """
    outer_theta, dim, max_positions = sizes
    kind = _kind(rope, habits.renamed)
    theta = rope.number("rope_theta", outer_theta)
    if theta == 1 and kind == "yarn":
        rope.problem("rope_theta", "is 1; yarn needs another base")
    numbers = _numbers(reader, rope, kind, max_positions)
    short, long = (
        _factors(rope, key, dim) if kind == "longrope" else ()
        for key in ("short_factor", "long_factor")
    )
    rope.misspelt()
    parameters = tuple(sorted(numbers.items()))
    return RopeSpec(kind, theta, dim, parameters, short, long, habits.interleaved)


def _share(reader: ConfigReader, partial: float | None) -> float:
    return reader.number("partial_rotary_factor", 1.0 if partial is None else partial)


def _rotated(reader: ConfigReader, head_dim: int, share: float, partial: float | None) -> int:
    """Return the rotated channels: int(head_dim * share), as in transformers 5.23."""
    if partial is None and share != 1.0:
        reader.problem("partial_rotary_factor", "must be 1 in this family")
        return head_dim
    if share > 1.0:
        reader.problem("partial_rotary_factor", f"is {share:g}; at most 1 makes sense")
        return head_dim
    if share == 1.0:
        return head_dim
    return max(even(reader, "partial_rotary_factor", int(head_dim * share)), 2)


def _kind(rope: ConfigReader, renamed: Mapping[str, RopeKind]) -> RopeKind:
    key = "rope_type" if rope.has("rope_type") else "type"
    value = rope.get(key)
    rope.get("type")
    if value is None:
        nested = sorted(k for k, v in rope.config.items() if isinstance(v, dict))
        if nested:
            rope.problem(nested[0], "rotations that differ by layer are unknown to this family")
        return "default"
    if isinstance(value, str) and value in renamed:
        return renamed[value]
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
    if kind in ("llama3", "yarn", "longrope"):
        numbers["original_max_position_embeddings"] = _original(reader, rope, max_positions)
    if kind == "llama3" and numbers["high_freq_factor"] <= numbers["low_freq_factor"]:
        rope.problem("high_freq_factor", "must be larger than low_freq_factor")
    if kind in ("yarn", "longrope"):
        # Without a factor, the ratio of the lengths: transformers 5.23 _compute_yarn_parameters.
        ratio = max_positions / numbers["original_max_position_embeddings"]
        numbers["factor"] = rope.number("factor", ratio)
    if kind == "yarn":
        numbers["truncate"] = float(rope.flag("truncate", True))
    return numbers


def _factors(rope: ConfigReader, key: str, dim: int) -> tuple[float, ...]:
    """Read longrope's list of divisors, one per pair of channels."""
    value = rope.get(key)
    items = value if isinstance(value, list) else []
    numbers = [
        x for x in items if isinstance(x, (int, float)) and not isinstance(x, bool) and x > 0
    ]
    if len(numbers) != dim // 2 or len(numbers) != len(items):
        rope.problem(key, f"must be a list of {dim // 2} positive numbers, one per rotated pair")
        return (1.0,) * (dim // 2)
    return tuple(float(x) for x in numbers)


def _original(reader: ConfigReader, rope: ConfigReader, max_positions: int) -> float:
    """Return the trained length; a top-level key has priority (transformers 5.23, for Phi-3)."""
    key = "original_max_position_embeddings"
    inner = rope.integer(key, max_positions)
    return float(reader.integer(key, inner))
