"""Parts of a config that most families spell alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.base import ACTIVATIONS
from mobilepack.models.layer_spec import Activation, LayerSpec, NormSpec

# A guard against a config that would fill memory; the deepest published models have under 200.
MAX_LAYERS = 1024


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a family assumes where its config is silent, as transformers does.

    Attributes:
        max_positions: `max_position_embeddings`.
        n_kv_heads: Key and value heads where the key is absent; None: as many as query heads.
        head_dim: Channels per head; None: hidden size over heads.
        bos_id: Beginning of sequence.
        eos_id: End of sequence.
        tied: Whether the head is the embedding table.
        eps: Of the norms.
        activation: Of the feed-forward, as the config would name it.
    """

    max_positions: int
    n_kv_heads: int | None = None
    head_dim: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    tied: bool = False
    eps: float = 1e-6
    activation: str = "silu"


@dataclass(frozen=True, slots=True)
class Heads:
    """Sizes of an attention."""

    count: int
    kv_count: int
    dim: int


def read_heads(reader: ConfigReader, defaults: Defaults, hidden: int) -> Heads:
    """Read how many heads there are and how many channels each has."""
    heads = reader.integer("num_attention_heads")
    kv_default = heads if explicit_null(reader, "num_key_value_heads") else defaults.n_kv_heads
    kv_heads = reader.integer("num_key_value_heads", kv_default or heads)
    if heads % kv_heads:
        reader.problem(
            "num_key_value_heads", f"is {kv_heads}; num_attention_heads ({heads}) is no multiple"
        )
        kv_heads = heads
    return Heads(heads, kv_heads, _head_dim(reader, defaults, hidden, heads))


def _head_dim(reader: ConfigReader, defaults: Defaults, hidden: int, heads: int) -> int:
    if not reader.has("head_dim") and defaults.head_dim is None:
        return whole_share(reader, hidden, heads)
    size = reader.integer("head_dim", defaults.head_dim)
    return even(reader, "head_dim", size)


def whole_share(reader: ConfigReader, hidden: int, heads: int) -> int:
    """Return channels per head where the hidden size is divided evenly."""
    if hidden % heads:
        reader.problem(
            "hidden_size",
            f"is {hidden}, no multiple of num_attention_heads ({heads}), and head_dim is absent",
        )
    return even(reader, "head_dim", max(hidden // heads, 1))


def even(reader: ConfigReader, key: str, size: int) -> int:
    """Return a number of rotated channels, which must be even."""
    if size % 2:
        reader.problem(key, f"is {size}; rotary embedding needs an even number")
    return size


def layer_count(reader: ConfigReader) -> int:
    """Read the number of blocks."""
    count = reader.integer("num_hidden_layers")
    if count > MAX_LAYERS:
        reader.problem("num_hidden_layers", f"is {count}; at most {MAX_LAYERS} is plausible")
    return min(count, MAX_LAYERS)


def read_activation(reader: ConfigReader, key: str, default: str) -> Activation:
    """Read the name of an activation."""
    return ACTIVATIONS[reader.choice(key, ACTIVATIONS, default)]


def bos_id(reader: ConfigReader, defaults: Defaults) -> int | None:
    """Read the id that begins a sequence."""
    if not reader.names("bos_token_id"):
        return defaults.bos_id
    ids = reader.token_ids("bos_token_id")
    return ids[0] if ids else None


def eos_ids(reader: ConfigReader, defaults: Defaults) -> tuple[int, ...]:
    """Read the ids that end a sequence."""
    if not reader.names("eos_token_id"):
        return () if defaults.eos_id is None else (defaults.eos_id,)
    return reader.token_ids("eos_token_id")


def explicit_null(reader: ConfigReader, key: str) -> bool:
    """Tell a key that is null from one that is absent; transformers' defaults differ."""
    return reader.names(key) and not reader.has(key)


def optional_number(reader: ConfigReader, key: str, default: float | None = None) -> float | None:
    """Read a number that may be null: absent means the default, null none."""
    if explicit_null(reader, key) or (not reader.has(key) and default is None):
        return None
    return reader.number(key, default)


def layer_norm(reader: ConfigReader, key: str, default: float = 1e-5) -> NormSpec:
    """Read a layer norm with weight and bias."""
    return NormSpec("layer", reader.number(key, default), bias=True)


def uniform(block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    """Return `count` equal blocks."""
    return (block,) * count


def window_size(reader: ConfigReader, default: int | None = 4096) -> int | None:
    """Return `sliding_window`: absent means the default, an explicit null means none.

    transformers 5.23 configuration_{mistral,qwen2,qwen3}.py.
    """
    if explicit_null(reader, "sliding_window"):
        return None
    if not reader.has("sliding_window") and default is None:
        return None
    return reader.integer("sliding_window", default)


def layer_types(reader: ConfigReader, count: int) -> list[str]:
    """Return `layer_types`, one kind of attention per block; empty where absent or wrong."""
    kinds = ("full_attention", "sliding_attention")
    value = reader.get("layer_types")
    if value is None:
        return []
    if not isinstance(value, list) or not all(kind in kinds for kind in value):
        reader.problem("layer_types", f"must be a list of {' and '.join(kinds)}")
        return []
    if len(value) != count:
        reader.problem("layer_types", f"has {len(value)} entries; num_hidden_layers is {count}")
        return []
    return cast(list[str], value)
