"""What the decoder needs to know about one block, whatever family it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from mobilepack.models.mla_spec import LatentAttentionSpec
    from mobilepack.models.moe_spec import MoeSpec
    from mobilepack.models.recurrent_spec import Mamba2Spec, RgLruSpec, ShortConvSpec

RopeKind = Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"]
Activation = Literal["silu", "gelu", "gelu_tanh", "gelu_quick", "relu", "relu2"]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary position embedding; how each kind scales is in `rope.py`.

    Attributes:
        kind: Scaling rule, named as in Hugging Face configs.
        theta: Base of the geometric series of wavelengths.
        dim: Rotated channels per head (even), the first ones; the rest pass through.
        parameters: The kind's own numbers, sorted by name, for example `factor`.
        short: longrope: divisors of the frequencies up to the original length, one per pair.
        long: longrope: the same beyond that length.
        interleaved: Whether channels 2i and 2i + 1 are a pair (GPT-J), else i and i + dim / 2.
    """

    kind: RopeKind
    theta: float
    dim: int
    parameters: tuple[tuple[str, float], ...] = ()
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()
    interleaved: bool = False


@dataclass(frozen=True, slots=True)
class AlibiSpec:
    """Attention with linear biases; the table of biases is made in `alibi.py`.

    Attributes:
        bias_max: The last of 2^n heads has the slope 2 ** -bias_max.
        kind: `bloom` orders the slopes of heads beyond a power of two as Bloom does, `mpt` as MPT;
            `falcon` is Bloom's with slopes and biases rounded to bf16 before scaling.
        scale: Factor on the finished biases.
    """

    bias_max: float = 8.0
    kind: Literal["bloom", "mpt", "falcon"] = "bloom"
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class NormSpec:
    """A norm over the channels.

    Attributes:
        kind: `rms` divides by the root mean square, `layer` removes the mean first.
        weight: Whether it multiplies by a vector.
        bias: Whether it adds a vector.
        offset: Added to every stored weight when it is read (Gemma and Nemotron store w - 1).
    """

    kind: Literal["rms", "layer"]
    eps: float
    weight: bool = True
    bias: bool = False
    offset: float = 0.0

    def shapes(self, name: str, channels: int) -> Shapes:
        """Return its parameters."""
        kinds = [kind for kind, has in (("weight", self.weight), ("bias", self.bias)) if has]
        return {f"{name}.{kind}": (channels,) for kind in kinds}


@dataclass(frozen=True, slots=True)
class HeadNormSpec:
    """A norm of queries and keys before the rotation.

    Attributes:
        scope: `head`: over each head's channels, one weight for all heads; `heads`: over each
            head's channels, every head with its own weight; `all`: over all heads' channels at
            once.
    """

    norm: NormSpec
    scope: Literal["head", "heads", "all"] = "head"

    def shapes(self, name: str, heads: int, head_dim: int) -> Shapes:
        """Return its parameters for so many heads."""
        return self.norm.shapes(name, head_dim if self.scope == "head" else heads * head_dim)


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Causal self-attention with a KV cache.

    Attributes:
        window: Sliding window in tokens (the token itself counts), None for full attention.
        rope: How queries and keys are rotated; None: not at all.
        alibi: Linear biases on the scores.
        scale: Factor on the scores; None: `head_dim ** -0.5`.
        softcap: Scores become `softcap * tanh(score / softcap)`.
        clip: Queries, keys and values are clamped to [-clip, clip], after their norms.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    window: int | None = None
    rope: RopeSpec | None = None
    alibi: AlibiSpec | None = None
    qk_norm: HeadNormSpec | None = None
    qkv_bias: bool = False
    o_bias: bool = False
    scale: float | None = None
    softcap: float | None = None
    clip: float | None = None

    @property
    def q_size(self) -> int:
        """Channels of all query heads."""
        return self.n_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Channels of all key (or value) heads."""
        return self.n_kv_heads * self.head_dim

    def shapes(self, hidden: int) -> Shapes:
        """Return its parameters."""
        shapes: Shapes = {}
        for name, size in (("q", self.q_size), ("k", self.kv_size), ("v", self.kv_size)):
            shapes |= linear_shapes(name, size, hidden, self.qkv_bias)
        if self.qk_norm is not None:
            shapes |= self.qk_norm.shapes("q_norm", self.n_heads, self.head_dim)
            shapes |= self.qk_norm.shapes("k_norm", self.n_kv_heads, self.head_dim)
        return shapes | linear_shapes("o", hidden, self.q_size, self.o_bias)


@dataclass(frozen=True, slots=True)
class FeedForwardSpec:
    """Two linear maps with an activation between, or three where a gate multiplies.

    Attributes:
        size: Channels between the maps.
        gated: Whether `activation(gate) * up` goes down, else `activation(up)`.
    """

    size: int
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False

    def shapes(self, hidden: int) -> Shapes:
        """Return its parameters."""
        shapes = linear_shapes("gate", self.size, hidden, self.bias) if self.gated else {}
        shapes |= linear_shapes("up", self.size, hidden, self.bias)
        return shapes | linear_shapes("down", hidden, self.size, self.bias)


Mixer: TypeAlias = "AttentionSpec | LatentAttentionSpec | ShortConvSpec | Mamba2Spec | RgLruSpec"
FeedForward: TypeAlias = "FeedForwardSpec | MoeSpec"
Form = Literal["pre", "post", "branch", "sandwich", "parallel", "parallel_two", "mixer"]

# The norms of each form of a block, by the name of their parameters.
FORM_NORMS: dict[Form, tuple[str, ...]] = {
    "pre": ("attn_norm", "mlp_norm"),
    "post": ("attn_norm", "mlp_norm"),
    "branch": ("attn_norm", "mlp_norm"),
    "sandwich": ("attn_norm", "attn_post_norm", "mlp_norm", "mlp_post_norm"),
    "parallel": ("attn_norm",),
    "parallel_two": ("attn_norm", "mlp_norm"),
    "mixer": ("attn_norm",),
}


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One decoder block: a mixer of tokens (attention) and a feed-forward.

    Attributes:
        form: Where the norms stand. With the sub-layer f: `pre` x + f(norm(x)); `post`
            norm(x + f(x)); `branch` x + norm(f(x)); `sandwich` x + norm'(f(norm(x))); `parallel`
            x + attention(norm(x)) + mlp(norm(x)); `parallel_two` the same with a norm each;
            `mixer` x + mixer(norm(x)), without a feed-forward.
        shares: Index of the earlier block whose parameters this one uses too; its KV cache is its
            own.
    """

    mixer: Mixer
    ffn: FeedForward | None
    norm: NormSpec
    form: Form = "pre"
    shares: int | None = None

    def shapes(self, hidden: int) -> Shapes:
        """Return its parameters, named as within the block."""
        shapes: Shapes = {}
        for name in FORM_NORMS[self.form]:
            shapes |= self.norm.shapes(name, hidden)
        shapes |= self.mixer.shapes(hidden)
        return shapes if self.ffn is None else shapes | self.ffn.shapes(hidden)


def linear_shapes(name: str, rows: int, columns: int, bias: bool) -> Shapes:
    """Return the parameters of a linear map."""
    weight: Shapes = {f"{name}.weight": (rows, columns)}
    return weight | ({f"{name}.bias": (rows,)} if bias else {})
