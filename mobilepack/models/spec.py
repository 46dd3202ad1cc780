"""What the decoder needs to know about a model, whatever family it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from mobilepack.models.layer_spec import (
    AlibiSpec,
    AttentionSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    RopeSpec,
    Shapes,
    linear_shapes,
)
from mobilepack.models.mla_spec import LatentAttentionSpec

ATTENTIONS = (AttentionSpec, LatentAttentionSpec)
"""Mixers with a KV cache."""


@dataclass(frozen=True, slots=True)
class PositionsSpec:
    """Learned absolute positions.

    Attributes:
        rows: Rows of the table.
        offset: Row of position 0.
    """

    rows: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """A decoder-only language model, ready to be instantiated without weights.

    Attributes:
        norm: The norm before the head, if there is one.
        tied_head: The output head is the embedding table.
        max_positions: Longest sequence the model was made for (`max_position_embeddings`).
        eos_ids: Every id that ends generation.
        embed_size: Channels of the embedding table; None: `hidden_size`. Where they differ, linear
            maps without bias (`project_in`, `project_out`) lie between.
        embed_scale: Factor on the embedded tokens.
        embed_norm: A norm over the embedded tokens.
        positions: Learned positions, added to the embedded tokens.
        head_bias: Whether the head adds a vector.
        logit_softcap: Logits become `softcap * tanh(logit / softcap)`.
        residual_scale: Factor on what every sub-layer adds to the residual stream. It is not a
            step of the decoder: the weights of `o` and `down` are multiplied when they are read.
        logit_scale: Factor on the logits; likewise multiplied into the last norm's weights.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSpec, ...]
    norm: NormSpec | None
    tied_head: bool
    max_positions: int
    bos_id: int | None
    eos_ids: tuple[int, ...]
    embed_size: int | None = None
    embed_scale: float = 1.0
    embed_norm: NormSpec | None = None
    positions: PositionsSpec | None = None
    head_bias: bool = False
    logit_softcap: float | None = None
    residual_scale: float = 1.0
    logit_scale: float = 1.0

    @property
    def table_size(self) -> int:
        """Channels of the embedding table."""
        return self.hidden_size if self.embed_size is None else self.embed_size

    @property
    def attentions(self) -> tuple[AttentionSpec | LatentAttentionSpec, ...]:
        """The mixers that are attentions, one for each block that has one."""
        mixers = (layer.mixer for layer in self.layers)
        return tuple(mixer for mixer in mixers if isinstance(mixer, ATTENTIONS))

    @property
    def is_plain(self) -> bool:
        """Whether every block is an attention and a feed-forward: no experts, states or latents."""
        return all(
            isinstance(layer.mixer, AttentionSpec) and isinstance(layer.ffn, FeedForwardSpec)
            for layer in self.layers
        )

    @property
    def is_recurrent(self) -> bool:
        """Whether a block carries a state from call to call that cannot be rewound."""
        return any(not isinstance(layer.mixer, ATTENTIONS) for layer in self.layers)

    @property
    def ropes(self) -> tuple[RopeSpec, ...]:
        """The different rotations, in the order of their first use."""
        found = (mixer.rope for mixer in self.attentions)
        return tuple(dict.fromkeys(rope for rope in found if rope is not None))

    @property
    def alibis(self) -> tuple[tuple[AlibiSpec, int], ...]:
        """The different linear biases with their number of heads, in the order of first use."""
        found = ((mixer.alibi, mixer.n_heads) for mixer in self.attentions)
        return tuple(dict.fromkeys((alibi, heads) for alibi, heads in found if alibi is not None))


@dataclass(frozen=True, slots=True)
class TensorSource:
    """Where a parameter of the decoder lies in a checkpoint.

    Attributes:
        key: Tensor name in the checkpoint.
        shape: Shape the decoder expects of the part it takes.
        start: First row of the part, for fused tensors.
        transposed: The checkpoint stores it as `[in, out]` (GPT-2's Conv1D).
        pick: Which rows, as (count, stride) from the outermost axis to the innermost, where they
            do not lie side by side: ((heads, 3 * head_dim), (head_dim, 1)) are the queries, keys
            or values of a tensor that is fused head by head.
        more: Further tensors whose rows follow, each as many as the first.
        scale: Factor on every number that is read.
        offset: Added to every number after that.
        stored: Shape of the tensor where its axes are others; its numbers are then taken as rows of
            the parameter's size, one after the other.
    """

    key: str
    shape: tuple[int, ...]
    start: int = 0
    transposed: bool = False
    pick: tuple[tuple[int, int], ...] = ()
    more: tuple[str, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    stored: tuple[int, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """All tensors it is read from."""
        return (self.key, *self.more)

    def runs(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return rows `start` to `stop` of the part as runs [first, end) of the tensor's rows."""
        if not self.pick:
            return [(self.start + start, self.start + stop)]
        runs: list[tuple[int, int]] = []
        for row in range(start, stop):
            at = self.start + _place(row, self.pick)
            if runs and runs[-1][1] == at:
                runs[-1] = (runs[-1][0], at + 1)
            else:
                runs.append((at, at + 1))
        return runs


def _place(row: int, pick: tuple[tuple[int, int], ...]) -> int:
    """Return where a row lies, its index taken apart by the axes' counts."""
    place = 0
    for count, stride in reversed(pick):
        row, index = divmod(row, count)
        place += index * stride
    return place


def parameter_shapes(spec: DecoderSpec) -> Shapes:
    """Return every parameter's name and shape, in the order the decoder uses them.

    Names are the decoder's own: `embed.weight`, `layers.0.q.weight`, `norm.weight`, `head.weight`.
    A tied head is listed as `head.weight` too; its source is the embedding's. A block that shares
    another's parameters has none of its own.
    """
    hidden, table = spec.hidden_size, spec.table_size
    shapes: Shapes = {"embed.weight": (spec.vocab_size, table)}
    if table != hidden:
        shapes |= linear_shapes("project_in", hidden, table, False)
    if spec.positions is not None:
        shapes["positions.weight"] = (spec.positions.rows, hidden)
    if spec.embed_norm is not None:
        shapes |= spec.embed_norm.shapes("embed_norm", hidden)
    for index, layer in enumerate(spec.layers):
        if layer.shares is None:
            own = layer.shapes(hidden)
            shapes |= {f"layers.{index}.{name}": shape for name, shape in own.items()}
    if spec.norm is not None:
        shapes |= spec.norm.shapes("norm", hidden)
    if table != hidden:
        shapes |= linear_shapes("project_out", table, hidden, False)
    return shapes | linear_shapes("head", spec.vocab_size, table, spec.head_bias)
