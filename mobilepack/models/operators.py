"""The decoder's large steps behind one interface: composite operators, or ExecuTorch's own.

Composite operators stay whole in an exported graph, for backends that lower them themselves. The
plain ones (`operators_plain.py`) are primitive torch with ExecuTorch's LLM kernels, which is what
its own lowering expects; they say the same thing a second time, in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
from torch import nn

from mobilepack.models import ops as _ops  # noqa: F401  registers torch.ops.mobilepack
from mobilepack.models.layer_spec import Activation

if TYPE_CHECKING:
    from mobilepack.models.operators_growing import GrowingCall
    from mobilepack.models.operators_static import StaticCall

GELU_CUBIC = 0.044715  # Hendrycks and Gimpel 2016, section 2
GELU_QUICK = 1.702  # the same section: x * sigmoid(1.702 x)

Position: TypeAlias = "torch.Tensor | int | StaticCall | GrowingCall"
"""Where a call starts: the `input_pos` tensor, the number in it (plain), or all that a call of the
static or the growing form is given."""

Tensor = torch.Tensor
OptionalTensor = torch.Tensor | None


class Operators(Protocol):
    """The large steps; shapes and meaning are those of `models/ops.py`."""

    def position(self, input_pos: Tensor, length: int, limit: int) -> Position:
        """Return the start position in the form that the other steps take."""

    def rms_norm(self, x: Tensor, weight: OptionalTensor, eps: float) -> Tensor:
        """See `ops.rms_norm`."""

    def layer_norm(
        self, x: Tensor, weight: OptionalTensor, bias: OptionalTensor, eps: float
    ) -> Tensor:
        """See `ops.layer_norm`."""

    def head_norm(
        self,
        x: Tensor,
        weight: OptionalTensor,
        bias: OptionalTensor,
        groups: int,
        eps: float,
        centred: bool,
    ) -> Tensor:
        """See `ops.head_norm`."""

    def rope(
        self, x: Tensor, cos: Tensor, sin: Tensor, position: Position, heads: int, interleaved: bool
    ) -> Tensor:
        """See `ops.rope`."""

    def positions(self, x: Tensor, table: Tensor, position: Position, offset: int) -> Tensor:
        """See `ops.positions`."""

    def attention(  # noqa: PLR0913  see ops.attention
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        position: Position,
        scale: float,
        window: int,
        softcap: float,
        alibi: OptionalTensor,
    ) -> Tensor:
        """See `ops.attention`."""

    def last_token(self, x: Tensor) -> Tensor:
        """See `ops.last_token`."""

    def activation(self, x: Tensor, kind: Activation) -> Tensor:
        """Apply the feed-forward's activation."""


class _Composite:
    """Each step is one operator of ours."""

    def __init__(self) -> None:
        ours = torch.ops.mobilepack
        self.rms_norm = ours.rms_norm
        self.layer_norm = ours.layer_norm
        self.head_norm = ours.head_norm
        self.rope = ours.rope
        self.positions = ours.positions
        self.attention = ours.attention
        self.last_token = ours.last_token

    @staticmethod
    def position(input_pos: Tensor, length: int, limit: int) -> Position:
        return input_pos

    @staticmethod
    def activation(x: Tensor, kind: Activation) -> Tensor:
        if kind == "gelu_tanh":
            return nn.functional.gelu(x, approximate="tanh")
        return ACTIVATIONS[kind](x)


def _relu_squared(x: Tensor) -> Tensor:
    positive = nn.functional.relu(x)
    return positive * positive


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "relu": nn.functional.relu,
    "relu2": _relu_squared,
    "gelu": nn.functional.gelu,
    "gelu_quick": lambda x: x * torch.sigmoid(x * GELU_QUICK),
}
"""Those that are written alike for both."""

COMPOSITE: Operators = _Composite()
