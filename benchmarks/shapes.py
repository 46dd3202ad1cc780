"""State the published shapes that the benchmarks build random weights in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Family = Literal["llama", "qwen3"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Hold the `llama3` rotary scaling of a published config.

    Attributes:
        factor: How many times longer than trained the context is.
        low_freq_factor: Wavelengths above trained length / this are scaled in full.
        high_freq_factor: Wavelengths below trained length / this are left alone.
        original_max_position_embeddings: Context length trained on, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, slots=True)
class Shape:
    """Describe a decoder by its sizes, in `config.json`'s words.

    Attributes:
        name: Folder name and label in the results.
        source: The published config the sizes were copied from.
        note: Where the shape departs from its source; empty where it does not.
    """

    name: str
    source: str
    family: Family
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    bos_token_id: int
    eos_token_id: int
    tie_word_embeddings: bool = True
    rope_scaling: RopeScaling | None = None
    note: str = field(default="", compare=False)

    def parameter_count(self) -> int:
        """Count the parameters; a tied head is counted once."""
        return sum(rows * (columns or 1) for _, rows, columns in tensor_sizes(self))

    def config(self) -> dict[str, object]:
        """Return the `config.json` of a Hugging Face checkpoint of this shape."""
        architecture = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[self.family]
        config: dict[str, object] = {
            "architectures": [architecture],
            "model_type": self.family,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": _rope_scaling_config(self.rope_scaling),
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": self.vocab_size,
        }
        if self.family == "llama":
            config["mlp_bias"] = False
        else:
            config |= {"sliding_window": None, "use_sliding_window": False}
        return config


_LLAMA_3_2_ROPE = RopeScaling(
    factor=32.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)

SHAPES: tuple[Shape, ...] = (
    Shape(
        name="smollm2-135m",
        source="HuggingFaceTB/SmolLM2-135M-Instruct config.json",
        family="llama",
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        vocab_size=49152,
        rms_norm_eps=1e-5,
        rope_theta=100000.0,
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=2,
    ),
    Shape(
        name="qwen3-0.6b",
        source="Qwen/Qwen3-0.6B config.json",
        family="qwen3",
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        rms_norm_eps=1e-6,
        rope_theta=1000000.0,
        max_position_embeddings=40960,
        bos_token_id=151643,
        eos_token_id=151645,
    ),
    Shape(
        name="llama3.2-1b",
        source="meta-llama/Llama-3.2-1B config.json",
        family="llama",
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        vocab_size=128256,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        max_position_embeddings=131072,
        bos_token_id=128000,
        eos_token_id=128001,
        rope_scaling=_LLAMA_3_2_ROPE,
    ),
    Shape(
        name="llama3.2-3b",
        source="meta-llama/Llama-3.2-3B config.json",
        family="llama",
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128256,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        max_position_embeddings=131072,
        bos_token_id=128000,
        eos_token_id=128001,
        rope_scaling=_LLAMA_3_2_ROPE,
    ),
    Shape(
        name="phi3.5-mini",
        source="microsoft/Phi-3.5-mini-instruct config.json",
        family="llama",
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        head_dim=96,
        vocab_size=32064,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=32000,
        tie_word_embeddings=False,
        note="sizes of Phi-3.5-mini in the llama architecture: q/k/v and gate/up are separate "
        "tensors, no sliding window, no longrope, context as trained before extension (4096)",
    ),
)


def shape_named(name: str) -> Shape:
    """Return the shape called `name`.

    Raises:
        KeyError: No shape has that name; the message lists those that exist.
    """
    for shape in SHAPES:
        if shape.name == name:
            return shape
    known = ", ".join(shape.name for shape in SHAPES)
    raise KeyError(f"no shape is called {name!r}; known shapes: {known}")


def tensor_sizes(shape: Shape) -> tuple[tuple[str, int, int], ...]:
    """List every tensor as (name, rows, columns), in file order.

    Columns are 0 for a vector. The order groups the tensors of a layer, as
    published checkpoints do, so that a shard holds whole layers.
    """
    sizes = [("model.embed_tokens.weight", shape.vocab_size, shape.hidden_size)]
    for layer in range(shape.num_hidden_layers):
        sizes += _layer_sizes(shape, f"model.layers.{layer}.")
    sizes.append(("model.norm.weight", shape.hidden_size, 0))
    if not shape.tie_word_embeddings:
        sizes.append(("lm_head.weight", shape.vocab_size, shape.hidden_size))
    return tuple(sizes)


def _layer_sizes(shape: Shape, prefix: str) -> list[tuple[str, int, int]]:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    query_rows = shape.num_attention_heads * shape.head_dim
    key_rows = shape.num_key_value_heads * shape.head_dim
    sizes = [
        ("input_layernorm.weight", hidden, 0),
        ("self_attn.q_proj.weight", query_rows, hidden),
        ("self_attn.k_proj.weight", key_rows, hidden),
        ("self_attn.v_proj.weight", key_rows, hidden),
        ("self_attn.o_proj.weight", hidden, query_rows),
        ("post_attention_layernorm.weight", hidden, 0),
        ("mlp.gate_proj.weight", inner, hidden),
        ("mlp.up_proj.weight", inner, hidden),
        ("mlp.down_proj.weight", hidden, inner),
    ]
    if shape.family == "qwen3":
        sizes += [
            ("self_attn.q_norm.weight", shape.head_dim, 0),
            ("self_attn.k_norm.weight", shape.head_dim, 0),
        ]
    return [(prefix + name, rows, columns) for name, rows, columns in sizes]


def _rope_scaling_config(scaling: RopeScaling | None) -> dict[str, object] | None:
    if scaling is None:
        return None
    return {
        "factor": scaling.factor,
        "high_freq_factor": scaling.high_freq_factor,
        "low_freq_factor": scaling.low_freq_factor,
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
        "rope_type": "llama3",
    }
