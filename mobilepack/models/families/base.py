"""What a family is, and what families share that are laid out like Llama."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, cast

from mobilepack.models.config import ConfigReader, JsonObject
from mobilepack.models.families.rope_config import read_rope
from mobilepack.models.spec import (
    Activation,
    DecoderSpec,
    LayerSpec,
    TensorSource,
    parameter_shapes,
)

# transformers 5.23 activations.py: the same function under several names.
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

# The decoder's names and Llama's; transformers 5.23 models/llama/modeling_llama.py.
_LLAMA_KEYS = {
    "attn_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    **{name: f"self_attn.{name}_proj" for name in "qkvo"},
    **{name: f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}


class Family(Protocol):
    """How one family's config.json and tensor names map onto the decoder."""

    @property
    def model_types(self) -> tuple[str, ...]:
        """Values of `model_type` that this family reads."""
        ...

    def read(self, config: JsonObject, file: str = "config.json") -> DecoderSpec:
        """Return the decoder that a config describes; `file` is how errors call it.

        Raises:
            UsageError: The config is wrong; all its problems at once.
        """
        ...

    def sources(self, spec: DecoderSpec) -> dict[str, TensorSource]:
        """Return where every parameter of `parameter_shapes(spec)` lies in a checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a family assumes where its config is silent, as transformers does.

    Attributes:
        n_kv_heads: Key and value heads where the key is absent; None: as many as query heads.
        head_dim: Channels per head; None: hidden size over heads.
        bos_id: Beginning of sequence.
        eos_id: End of sequence.
    """

    max_positions: int
    n_kv_heads: int | None = None
    head_dim: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None


LayersOf = Callable[[ConfigReader, LayerSpec, int], tuple[LayerSpec, ...]]


@dataclass(frozen=True, slots=True)
class LlamaLike:
    """A family with Llama's blocks and tensor names.

    Attributes:
        layers: Given the reader, a plain block and the number of blocks, returns the blocks.
    """

    model_types: tuple[str, ...]
    defaults: Defaults
    layers: LayersOf

    def read(self, config: JsonObject, file: str = "config.json") -> DecoderSpec:
        """Return the decoder that a config describes."""
        reader = ConfigReader(config, file)
        hidden = reader.integer("hidden_size")
        block = _read_block(reader, self.defaults, hidden)
        count = reader.integer("num_hidden_layers")
        max_positions = reader.integer("max_position_embeddings", self.defaults.max_positions)
        activation = reader.choice("hidden_act", ACTIVATIONS, "silu")
        spec = DecoderSpec(
            family=self.model_types[0],
            vocab_size=reader.integer("vocab_size"),
            hidden_size=hidden,
            layers=self.layers(reader, block, min(count, MAX_LAYERS)),
            norm_eps=reader.number("rms_norm_eps", 1e-6),
            rope=read_rope(reader, block.head_dim, max_positions),
            # False is the default of all families with this layout (transformers 5.23).
            tied_head=reader.flag("tie_word_embeddings", False),
            max_positions=max_positions,
            bos_id=_bos(reader, self.defaults),
            eos_ids=_eos(reader, self.defaults),
            activation=ACTIVATIONS[activation],
        )
        if count > MAX_LAYERS:
            reader.problem("num_hidden_layers", f"is {count}; at most {MAX_LAYERS} is plausible")
        reader.finish()
        return spec

    def sources(self, spec: DecoderSpec) -> dict[str, TensorSource]:
        """Return where every parameter lies in a checkpoint with Llama's tensor names."""
        shapes = parameter_shapes(spec)
        return {name: TensorSource(_llama_key(name, spec), shape) for name, shape in shapes.items()}


# A guard against a config that would fill memory; the deepest published models have under 200.
MAX_LAYERS = 1024


def uniform(block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    """Return `count` equal blocks."""
    return (block,) * count


def windowed(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    """Return blocks as Qwen2 and Qwen3 mix full and sliding attention.

    transformers 5.23 configuration_qwen2.py: `sliding_window` counts only if `use_sliding_window`;
    `layer_types` decides block by block, and where it is absent the blocks from
    `max_window_layers` on slide.
    """
    use = reader.flag("use_sliding_window", False)
    size = window_size(reader) if use else None
    first = reader.integer("max_window_layers", 28, minimum=0)
    default = ["full_attention"] * count
    if size is not None:
        default = ["sliding_attention" if i >= first else "full_attention" for i in range(count)]
    kinds = layer_types(reader, count) or default
    if "sliding_attention" in kinds and size is None:
        reader.problem("layer_types", "has sliding_attention, but sliding_window is not in use")
    sliding = replace(block, window=size)
    return tuple(sliding if kind == "sliding_attention" else block for kind in kinds)


def window_size(reader: ConfigReader) -> int | None:
    """Return `sliding_window`: absent means 4096, an explicit null means none.

    transformers 5.23 configuration_{mistral,qwen2,qwen3}.py.
    """
    return (
        None if _explicit_null(reader, "sliding_window") else reader.integer("sliding_window", 4096)
    )


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


def _read_block(reader: ConfigReader, defaults: Defaults, hidden: int) -> LayerSpec:
    heads = reader.integer("num_attention_heads")
    kv_default = heads if _explicit_null(reader, "num_key_value_heads") else defaults.n_kv_heads
    kv_heads = reader.integer("num_key_value_heads", kv_default or heads)
    if heads % kv_heads:
        reader.problem(
            "num_key_value_heads", f"is {kv_heads}; num_attention_heads ({heads}) is no multiple"
        )
    return LayerSpec(
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=_head_dim(reader, defaults, hidden, heads),
        ffn_size=reader.integer("intermediate_size"),
    )


def _explicit_null(reader: ConfigReader, key: str) -> bool:
    """Tell a key that is null from one that is absent; transformers' defaults differ."""
    return key in reader.config and not reader.has(key)


def _head_dim(reader: ConfigReader, defaults: Defaults, hidden: int, heads: int) -> int:
    given = reader.has("head_dim") or defaults.head_dim is not None
    if not given and hidden % heads:
        reader.problem(
            "hidden_size",
            f"is {hidden}, no multiple of num_attention_heads ({heads}), and head_dim is absent",
        )
    size = reader.integer("head_dim", defaults.head_dim or max(hidden // heads, 1))
    if size % 2:
        reader.problem("head_dim", f"is {size}; rotary embedding needs an even number")
    return size


def _bos(reader: ConfigReader, defaults: Defaults) -> int | None:
    if "bos_token_id" not in reader.config:
        return defaults.bos_id
    ids = reader.token_ids("bos_token_id")
    return ids[0] if ids else None


def _eos(reader: ConfigReader, defaults: Defaults) -> tuple[int, ...]:
    if "eos_token_id" not in reader.config:
        return () if defaults.eos_id is None else (defaults.eos_id,)
    return reader.token_ids("eos_token_id")


def _llama_key(name: str, spec: DecoderSpec) -> str:
    if name == "embed.weight" or (name == "head.weight" and spec.tied_head):
        return "model.embed_tokens.weight"
    if name == "head.weight":
        return "lm_head.weight"
    if name == "norm.weight":
        return "model.norm.weight"
    _, index, module, kind = name.split(".")
    return f"model.layers.{index}.{_LLAMA_KEYS[module]}.{kind}"
