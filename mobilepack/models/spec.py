"""What the decoder needs to know about a model, whatever family it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RopeKind = Literal["default", "linear", "dynamic", "llama3", "yarn"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding; how each kind scales is in `rope.py`.

    Attributes:
        kind: Scaling rule, named as in Hugging Face configs.
        theta: Base of the geometric series of wavelengths.
        dim: Rotated channels per head (even); the rest pass through.
        parameters: The kind's own numbers, sorted by name, for example `factor`.
    """

    kind: RopeKind
    theta: float
    dim: int
    parameters: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One decoder block.

    Attributes:
        window: Sliding attention window in tokens (the token itself counts), None for full.
        rotary: Whether queries and keys are rotated.
        qk_norm: RMS norm over each head's channels before the rotation.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_size: int
    window: int | None = None
    rotary: bool = True
    qk_norm: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False

    @property
    def q_size(self) -> int:
        """Channels of all query heads."""
        return self.n_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Channels of all key (or value) heads."""
        return self.n_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """A decoder-only language model, ready to be instantiated without weights.

    Attributes:
        tied_head: The output head is the embedding table.
        max_positions: Longest sequence the model was made for (`max_position_embeddings`).
        eos_ids: Every id that ends generation.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSpec, ...]
    norm_eps: float
    rope: RopeSpec
    tied_head: bool
    max_positions: int
    bos_id: int | None
    eos_ids: tuple[int, ...]
    activation: Activation = "silu"


@dataclass(frozen=True, slots=True)
class TensorSource:
    """Where a parameter of the decoder lies in a checkpoint.

    Attributes:
        key: Tensor name in the checkpoint.
        shape: Shape the decoder expects of the part it takes.
        start: First row of the part, for fused tensors.
        transposed: The checkpoint stores it as `[in, out]` (GPT-2's Conv1D).
    """

    key: str
    shape: tuple[int, ...]
    start: int = 0
    transposed: bool = False


def parameter_shapes(spec: DecoderSpec) -> dict[str, tuple[int, ...]]:
    """Return every parameter's name and shape, in the order the decoder uses them.

    Names are the decoder's own: `embed.weight`, `layers.0.q.weight`, `norm.weight`, `head.weight`.
    A tied head is listed as `head.weight` too; its source is the embedding's.
    """
    hidden = spec.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (spec.vocab_size, hidden)}
    for index, layer in enumerate(spec.layers):
        prefix = f"layers.{index}."
        shapes |= {prefix + name: shape for name, shape in _layer_shapes(layer, hidden).items()}
    shapes["norm.weight"] = (hidden,)
    shapes["head.weight"] = (spec.vocab_size, hidden)
    return shapes


def _layer_shapes(layer: LayerSpec, hidden: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"attn_norm.weight": (hidden,)}
    linears = (
        ("q", layer.q_size, hidden, layer.qkv_bias),
        ("k", layer.kv_size, hidden, layer.qkv_bias),
        ("v", layer.kv_size, hidden, layer.qkv_bias),
        ("o", hidden, layer.q_size, layer.o_bias),
        ("gate", layer.ffn_size, hidden, layer.mlp_bias),
        ("up", layer.ffn_size, hidden, layer.mlp_bias),
        ("down", hidden, layer.ffn_size, layer.mlp_bias),
    )
    for name, rows, columns, bias in linears:
        if name == "gate":
            shapes["mlp_norm.weight"] = (hidden,)
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)
        if name == "v" and layer.qk_norm:
            shapes["q_norm.weight"] = (layer.head_dim,)
            shapes["k_norm.weight"] = (layer.head_dim,)
    return shapes
