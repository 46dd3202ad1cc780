"""What the decoder needs to know about a mixture of experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mobilepack.models.layer_spec import Activation, FeedForwardSpec, Shapes, linear_shapes

Weighting = Literal["softmax", "softmax_chosen", "sparsemixer"]


@dataclass(frozen=True, slots=True)
class MoeSpec:
    """Feed-forwards of which a router chooses a few for every token.

    Attributes:
        experts: How many there are.
        count: How many a token goes through.
        size: Channels between an expert's maps.
        weighting: Factor on each expert's result, see `ops_moe.expert_weights`.
        jitter: sparsemixer: the config's `router_jitter_noise`.
        shared: A feed-forward that every token goes through, multiplied by a sigmoid of its own
            (Qwen2-MoE).
    """

    experts: int
    count: int
    size: int
    activation: Activation = "silu"
    weighting: Weighting = "softmax"
    jitter: float = 0.0
    shared: FeedForwardSpec | None = None

    def shapes(self, hidden: int) -> Shapes:
        """Return its parameters; those of all experts are one matrix each, one after the other."""
        shapes = linear_shapes("router", self.experts, hidden, False)
        shapes |= linear_shapes("experts_gate", self.experts * self.size, hidden, False)
        shapes |= linear_shapes("experts_up", self.experts * self.size, hidden, False)
        shapes |= linear_shapes("experts_down", self.experts * hidden, self.size, False)
        if self.shared is not None:
            shapes |= linear_shapes("shared_router", 1, hidden, False)
            own = self.shared.shapes(hidden)
            shapes |= {f"shared_{name}": shape for name, shape in own.items()}
        return shapes
