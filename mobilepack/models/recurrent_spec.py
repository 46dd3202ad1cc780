"""What the decoder needs to know about mixers of tokens that carry a state of fixed size."""

from __future__ import annotations

from dataclasses import dataclass

from mobilepack.models.layer_spec import Activation, Shapes, linear_shapes

CHUNK = 64
"""Tokens of Mamba 2's parallel form: its sums of decays stay short, so that they stay exact."""


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """A causal convolution along the tokens, each channel on its own.

    Attributes:
        taps: Tokens it sees, the token itself included.
        bias: Whether it adds a vector.
    """

    taps: int
    bias: bool

    @property
    def before(self) -> int:
        """Earlier tokens it sees."""
        return self.taps - 1

    def shapes(self, name: str, channels: int) -> Shapes:
        """Return its parameters; weights are `[channels, taps]`, the newest token last."""
        return linear_shapes(name, channels, self.taps, False) | (
            {f"{name}.bias": (channels,)} if self.bias else {}
        )


@dataclass(frozen=True, slots=True)
class ShortConvSpec:
    """LFM2's mixer: c * conv(b * x), where b, c and x are linear maps of the input.

    Attributes:
        width: Channels, the model's own.
        bias: Whether the linear maps have one.
    """

    width: int
    conv: ConvSpec
    bias: bool = False

    @property
    def state_numbers(self) -> int:
        """Numbers it carries from call to call."""
        return self.conv.before * self.width

    @property
    def between(self) -> int:
        """Channels per token that lie between delegates: what the convolution sees."""
        return self.width

    def shapes(self, hidden: int) -> Shapes:
        """Return its parameters."""
        shapes: Shapes = {}
        for name in ("in_b", "in_c", "in_x"):
            shapes |= linear_shapes(name, hidden, hidden, self.bias)
        shapes |= self.conv.shapes("conv", hidden)
        return shapes | linear_shapes("o", hidden, hidden, self.bias)


@dataclass(frozen=True, slots=True)
class Mamba2Spec:
    """Mamba 2's mixer, a state-space model (arXiv 2405.21060).

    Attributes:
        groups: Groups of heads that share their input and output maps (B and C).
        state: Channels of a head's state beside its own.
        eps: Of the gated norm before the last map.
        dt_limits: Bounds of the step size.
        bias: Whether the linear maps have one.
    """

    n_heads: int
    head_dim: int
    groups: int
    state: int
    conv: ConvSpec
    eps: float
    activation: Activation = "silu"
    dt_limits: tuple[float, float] = (0.0, float("inf"))
    bias: bool = False

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        return self.n_heads * self.head_dim

    @property
    def state_numbers(self) -> int:
        """Numbers it carries from call to call."""
        convolved = self.inner + 2 * self.groups * self.state
        return self.conv.before * convolved + self.inner * self.state

    @property
    def between(self) -> int:
        """Channels per token that lie between delegates: windows, operands, gate and result."""
        return 4 * self.inner + 4 * self.groups * self.state + self.n_heads

    @property
    def inside(self) -> int:
        """Numbers alive inside the parallel form, most of them decays between two tokens."""
        return 4 * self.n_heads * CHUNK * CHUNK + 2 * self.inner * self.state

    def shapes(self, hidden: int) -> Shapes:
        """Return its parameters: z gates, x, b and c go through the convolution, dt is the step."""
        shared = self.groups * self.state
        shapes: Shapes = {}
        sizes = (("z", self.inner), ("x", self.inner), ("b", shared), ("c", shared))
        for name, size in (*sizes, ("dt", self.n_heads)):
            shapes |= linear_shapes(f"in_{name}", size, hidden, self.bias)
        for name, size in sizes[1:]:
            shapes |= self.conv.shapes(f"conv_{name}", size)
        for name in ("dt_bias", "a_log", "d"):
            shapes[f"{name}.weight"] = (self.n_heads,)
        shapes["gated_norm.weight"] = (self.inner,)
        return shapes | linear_shapes("o", hidden, self.inner, self.bias)


@dataclass(frozen=True, slots=True)
class RgLruSpec:
    """RecurrentGemma's mixer, a real-gated linear recurrent unit (arXiv 2402.19427).

    Attributes:
        width: Channels of the recurrence.
        heads: Blocks of the gates' block-diagonal maps.
        activation: Of the branch that multiplies the result.
    """

    width: int
    heads: int
    conv: ConvSpec
    activation: Activation = "gelu_tanh"

    @property
    def state_numbers(self) -> int:
        """Numbers it carries from call to call."""
        return (self.conv.before + 1) * self.width

    @property
    def between(self) -> int:
        """Channels per token that lie between delegates: window, operands, both sums, result."""
        return 8 * self.width

    def shapes(self, hidden: int) -> Shapes:
        """Return its parameters; the gates' are `[in, out]` matrices, block after block."""
        block = self.width // self.heads
        shapes = linear_shapes("in_y", self.width, hidden, True)
        shapes |= linear_shapes("in_x", self.width, hidden, True)
        shapes |= self.conv.shapes("conv", self.width)
        for name in ("input_gate", "recurrent_gate"):
            shapes |= linear_shapes(name, self.width, block, False)
            shapes[f"{name}.bias"] = (self.width,)
        shapes["recurrent_param.weight"] = (self.width,)
        return shapes | linear_shapes("o", hidden, self.width, True)
