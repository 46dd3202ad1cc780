"""What an attention's graph depends on, and how a value is laid out on its way to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mobilepack.backends.xnnpack.cache import Operand, Role, Shape
from mobilepack.backends.xnnpack.layout import HeadRows
from mobilepack.models import ops as _ops  # noqa: F401  registers torch.ops.mobilepack
from mobilepack.models.graph import arguments, fixed

if TYPE_CHECKING:
    from torch.fx import Node

_ROPE = torch.ops.mobilepack.rope.default
_ATTENTION = torch.ops.mobilepack.attention.default
# What may lie between a linear map and the rotation of its result.
_BEFORE_ROTATION = (torch.ops.mobilepack.head_norm.default, torch.ops.aten.clamp.default)


class UnknownGraphError(Exception):
    """The graph holds something this lowering has no rule for."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Queries or keys in parts of every head's channels: those that a rotation pairs, and the rest.

    Attributes:
        values: Each `[1, seq, heads, width]`.
        rows: Which channels of a head each of them holds.
    """

    values: tuple[int, ...]
    rows: tuple[HeadRows, ...]


@dataclass(frozen=True, slots=True)
class Rotation:
    """How the result of a linear map is rotated: `half` pairs of channels per head."""

    heads: int
    head_dim: int
    half: int
    interleaved: bool

    @property
    def rows(self) -> tuple[HeadRows, ...]:
        """The rows of the first and the second of every pair, and of what passes through."""
        dim, end = self.head_dim, 2 * self.half
        if self.interleaved:
            pairs = HeadRows(dim, 0, end, 2), HeadRows(dim, 1, end, 2)
        else:
            pairs = HeadRows(dim, 0, self.half), HeadRows(dim, self.half, end)
        return pairs if end == dim else (*pairs, HeadRows(dim, end, dim))


def rotation_of(linear: Node) -> Rotation | None:
    """Return the rotation if a linear map's result is only ever rotated.

    Such a map is done in parts of every head's rows: XNNPACK has no cheap slice, and rows of a
    weight matrix can be sorted for free while they are written. Queries and keys are left in that
    order, which their products do not see.
    """
    node = linear
    while len(node.users) == 1:
        (user,) = node.users
        if user.target is _ROPE:
            _, cos, _, _, heads, interleaved = arguments(user)
            return Rotation(heads, fixed(linear, -1) // heads, fixed(cos, 1), bool(interleaved))
        if user.target not in _BEFORE_ROTATION:
            return None
        node = user
    return None


def attention_shape(attention: Node) -> Shape:
    """Return what decides an attention's graph."""
    query, _, _, key_cache, _, _, scale, window, softcap, alibi = arguments(attention)
    limit, kv_heads, head_dim = (fixed(key_cache, axis) for axis in (1, 2, 3))
    return Shape(
        heads=fixed(query, -1) // head_dim,
        kv_heads=kv_heads,
        head_dim=head_dim,
        scale=float(scale),
        window=0 if window >= limit else int(window),
        softcap=float(softcap),
        biased=alibi is not None,
    )


def attention_operand(node: Node) -> Operand | None:
    """Return what a node is to the attention that takes it as query, key or value."""
    roles: tuple[Role, ...] = ("query", "key", "value")
    for user in node.users:
        if user.target is _ATTENTION and node in arguments(user)[:3]:
            return Operand(roles[arguments(user).index(node)], attention_shape(user))
    return None


def attention_result(node: Node) -> Shape | None:
    """Return the attention whose result a node is, whole or its last token."""
    if node.target is torch.ops.mobilepack.last_token.default:
        return attention_result(arguments(node)[0])
    return attention_shape(node) if node.target is _ATTENTION else None


def single(value: int | Parts, node: Node) -> int:
    """Return a value that must not be in parts."""
    if isinstance(value, Parts):
        raise UnknownGraphError(f"{node} is in parts but used whole")
    return value
