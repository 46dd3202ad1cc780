"""The decoder's large steps as MIL operators, in the layout that the Neural Engine computes in.

Activations are fp16 `[1, channels, 1, T]`, inside an attention `[1, heads, head_dim, T]`; keys and
values lie by position, `[1, kv_heads, positions, head_dim]`. Linear maps are convolutions with a
kernel of one, each head is attended by itself, and norms divide by the largest magnitude first.
Sources of these rules: apple/coreai-models neural_engine_rules.md, apple/ml-ane-transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from mobilepack.backends.coreml.values import Graph, Value
from mobilepack.models.layer_spec import Activation
from mobilepack.models.operators import GELU_QUICK, OptionalTensor

LEAST_MAGNITUDE = 2.0**-12
"""Below it a vector counts as nothing: eps over its square must stay below fp16's 65504."""

SLOTS = 32
"""Keys come in whole multiples: 64 bytes of a mask in fp16."""

Tensor = torch.Tensor
Constants = Callable[[Graph, Tensor, tuple[int, ...]], Value]
"""Returns a vector or table of the decoder (known by identity) as a constant of some shape."""


def slots(count: int, multiple: int = SLOTS) -> int:
    """Return the next whole multiple."""
    return -(-count // multiple) * multiple


@dataclass(slots=True)
class Call:
    """What one function is given and makes.

    Attributes:
        positions: int32 [1, T]; None where nothing asks for them.
        masks: By window, [1, 1, T, keys].
        past: Positions of the cache.
        write: One-hot rows [1, 1, T, past] that say where the states take each token; None where
            keys and values are returned instead.
        keep: 1 where a state keeps what it has, [1, 1, past, 1].
        new: Keys and values of the T tokens, [1, kv_heads, T, head_dim], as they are made.
        kept: What many layers need, made once.
    """

    graph: Graph
    tokens: int
    past: int
    positions: Value | None = None
    masks: Mapping[int, Value] = field(default_factory=dict)
    write: Value | None = None
    keep: Value | None = None
    new: list[Value] = field(default_factory=list)
    kept: dict[tuple[object, ...], Value] = field(default_factory=dict)

    @property
    def places(self) -> Value:
        """The positions.

        Raises:
            ValueError: The function has none.
        """
        if self.positions is None:
            raise ValueError("the function is given no positions")
        return self.positions

    def once(self, key: tuple[object, ...], make: Callable[[], Value]) -> Value:
        """Return what an earlier layer made, or make it."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys or values of a layer.

    Attributes:
        name: Of the input or state.
        value: What it holds, [1, kv_heads, past, head_dim].
    """

    name: str
    value: Value


@dataclass(slots=True)
class Steps:
    """`models.operators.Operators` over values of a graph.

    Attributes:
        constants: Finds the decoder's own vectors and tables.
        slopes: Returns the linear bias per position of each head, by the table of biases.
    """

    graph: Graph
    constants: Constants
    slopes: Callable[[Tensor], list[float]]

    def rms_norm(self, x: Value, weight: OptionalTensor, eps: float) -> Value:
        """Divide by the root mean square of the channels (axis 1)."""
        normed = self._divided(x, 1, eps)
        if weight is None:
            return normed
        return normed * self.constants(self.graph, weight, (1, x.shape[1], 1, 1))

    def layer_norm(
        self, x: Value, weight: OptionalTensor, bias: OptionalTensor, eps: float
    ) -> Value:
        """Remove the mean of the channels (axis 1), divide by their deviation."""
        return self._centred(x, 1, weight, bias, eps)

    def head_norm(
        self,
        x: Value,
        weight: OptionalTensor,
        bias: OptionalTensor,
        groups: int,
        eps: float,
        centred: bool,
    ) -> Value:
        """Normalise each of `groups` runs of channels; see `ops.head_norm`."""
        if groups == 1 and centred:
            return self.layer_norm(x, weight, bias, eps)
        if groups == 1:
            return self.rms_norm(x, weight, eps)
        split = self._heads(x, groups)
        width = split.shape[2]
        own = weight is not None and weight.shape[0] != width
        sizes = (1, groups if own else 1, width, 1)
        if centred:
            normed = self._centred(split, 2, None, None, eps)
        else:
            normed = self._divided(split, 2, eps)
        if weight is not None:
            normed = normed * self.constants(self.graph, weight, sizes)
        return normed if bias is None else normed + self.constants(self.graph, bias, sizes)

    def _divided(self, x: Value, axis: int, eps: float) -> Value:
        graph = self.graph
        largest = graph.reduce("reduce_max", graph.same("abs", x), axis)
        largest = graph.binary("maximum", largest, LEAST_MAGNITUDE)
        scaled = graph.binary("real_div", x, largest)
        squares = graph.reduce("reduce_mean", graph.same("square", scaled), axis)
        # eps belongs to the unscaled mean: eps / largest²
        small = graph.one("real_div", largest.type, x=np.float16(math.sqrt(eps)), y=largest)
        root = graph.same("sqrt", squares + graph.same("square", small))
        return graph.binary("real_div", scaled, root)

    def _centred(
        self, x: Value, axis: int, weight: OptionalTensor, bias: OptionalTensor, eps: float
    ) -> Value:
        width = (x.shape[axis],)
        named = {"gamma": weight, "beta": bias}
        more = {k: self.constants(self.graph, t, width) for k, t in named.items() if t is not None}
        axes = np.array([axis], np.int32)
        return self.graph.same("layer_norm", x, axes=axes, epsilon=np.float16(eps), **more)

    def _heads(self, x: Value, heads: int) -> Value:
        """Return `[1, channels, 1, T]` as `[1, heads, head_dim, T]`; what is so already stays."""
        if x.shape[2] != 1:
            return x
        return self.graph.reshape(x, (1, heads, x.shape[1] // heads, x.shape[3]))

    def rope(
        self, x: Value, cos: Tensor, sin: Tensor, position: Call, heads: int, interleaved: bool
    ) -> Value:
        """Rotate queries or keys.

        Of interleaved pairs the first channels come out first: queries and keys are reordered
        alike, and nobody else sees them.
        """
        graph, split = self.graph, self._heads(x, heads)
        c, s = (self._rows(table, position) for table in (cos, sin))
        half_dim, dim = cos.shape[1], split.shape[2]
        if interleaved:
            a = graph.slice(split, 2, 0, 2 * half_dim, 2)
            b = graph.slice(split, 2, 1, 2 * half_dim, 2)
        else:
            a = graph.slice(split, 2, 0, half_dim)
            b = graph.slice(split, 2, half_dim, 2 * half_dim)
        parts = [graph.binary("sub", a * c, b * s), b * c + a * s]
        if dim > 2 * half_dim:
            parts.append(graph.slice(split, 2, 2 * half_dim, dim))
        return graph.concat(parts, 2)

    def _rows(self, table: Tensor, call: Call) -> Value:
        """Return a table's rows at the positions, [1, 1, columns, T]."""

        def make() -> Value:
            stored = self.constants(self.graph, table, (table.shape[1], table.shape[0]))
            found = self.graph.gather(stored, call.places, 1)
            return self.graph.reshape(found, (1, 1, table.shape[1], call.tokens))

        return call.once(("rows", id(table)), make)

    def positions(self, x: Value, table: Tensor, position: Call, offset: int) -> Value:
        """Return the learned positions, [1, channels, 1, T]; the table begins at position 0."""
        del x, offset
        graph = self.graph
        stored = self.constants(graph, table, (table.shape[0], table.shape[1]))
        rows = graph.gather(stored, position.places, 0)
        return by_channel(graph, rows, position.tokens)

    def attention(  # noqa: PLR0913  see ops.attention
        self,
        q: Value,
        k: Value,
        v: Value,
        k_cache: Cache,
        v_cache: Cache,
        position: Call,
        scale: float,
        window: int,
        softcap: float,
        alibi: OptionalTensor,
    ) -> Value:
        """Attend head by head; see `ops.attention`."""
        graph, call = self.graph, position
        kv_heads, head_dim = k_cache.value.shape[1], k_cache.value.shape[3]
        heads = math.prod(q.shape) // (call.tokens * head_dim)
        keys = self._cached(self._heads(k, kv_heads), k_cache, call)
        values = self._cached(self._heads(v, kv_heads), v_cache, call)
        queries = graph.split(self._heads(q, heads) * scale, 1, [1] * heads)
        by_head = [graph.split(t, 1, [1] * kv_heads) for t in (keys, values)]
        mixed = []
        for index, query in enumerate(queries):
            key, value = (part[index * kv_heads // heads] for part in by_head)
            scores = graph.matmul(query, key, transpose_x=True, transpose_y=True)
            if softcap:
                scores = graph.same("tanh", scores * (1 / softcap)) * softcap
            weights = graph.softmax(scores + self._added(call, window, alibi, index))
            mixed.append(graph.matmul(value, weights, transpose_x=True, transpose_y=True))
        return graph.reshape(graph.concat(mixed, 1), (1, heads * head_dim, 1, call.tokens))

    def _cached(self, new: Value, cache: Cache, call: Call) -> Value:
        """Return all keys or values, [1, kv_heads, positions, head_dim], the new ones in place."""
        graph = self.graph
        name = f"new_{cache.name}" if call.write is None else ""
        rows = graph.transpose(new, (0, 1, 3, 2), name)
        if call.write is not None and call.keep is not None:
            placed = graph.matmul(call.write, rows, transpose_x=True)
            return graph.write(cache.name, cache.value * call.keep + placed)
        call.new.append(rows)
        spare = slots(call.past + call.tokens) - call.past - call.tokens
        parts = [cache.value, rows]
        if spare:
            sizes = (1, rows.shape[1], spare, rows.shape[3])
            parts.append(graph.constant("no_keys", np.zeros(sizes, np.float16)))
        return graph.concat(parts, 2)

    def _added(self, call: Call, window: int, alibi: OptionalTensor, head: int) -> Value:
        """Return what is added to the scores of a head, [1, 1, T, keys]."""
        mask = call.masks[window]
        if alibi is None:
            return mask
        slopes = self.slopes(alibi)

        def make() -> Value:
            # Of the distance, not of the key's own position: fp16 is exact to 2048 steps of it.
            return self._distances(call) * slopes[head] + mask

        return call.once(("alibi", id(alibi), head, window), make)

    def _distances(self, call: Call) -> Value:
        """Return every key's position less the query's, [1, 1, T, keys]."""
        graph = self.graph

        def make() -> Value:
            at = graph.reshape(graph.cast_half(call.places), (1, 1, 1, call.tokens))
            own = graph.reshape(at, (1, 1, call.tokens, 1))
            past = graph.constant("past_positions", _range(call.past))
            if call.write is not None:
                return graph.binary("sub", past, own)
            spare = slots(call.past + call.tokens) - call.past - call.tokens
            parts = [past, at]
            if spare:
                parts.append(graph.constant("no_positions", np.zeros((1, 1, 1, spare), np.float16)))
            return graph.binary("sub", graph.concat(parts, 3), own)

        return call.once(("distances",), make)

    def last_token(self, x: Value) -> Value:
        """Return the last of the T tokens."""
        return self.graph.slice(x, 3, x.shape[3] - 1, x.shape[3])

    def activation(self, x: Value, kind: Activation) -> Value:
        """Apply the feed-forward's activation; the result's name does not tell which one."""
        graph, name = self.graph, self.graph.called("activation")
        if kind == "relu2":
            return graph.same("square", graph.same("relu", x), name)
        if kind == "gelu_quick":
            return graph.same("mul", x, name, y=graph.same("sigmoid", x * GELU_QUICK))
        if kind == "gelu_tanh":
            return graph.same("gelu", x, name, mode="TANH_APPROXIMATION")
        if kind == "gelu":
            return graph.same("gelu", x, name, mode="EXACT")
        return graph.same(kind, x, name)


def _range(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float16).reshape(1, 1, 1, count)


def by_channel(graph: Graph, rows: Value, tokens: int) -> Value:
    """Return rows [..., T, channels] as [1, channels, 1, T]."""
    flat = graph.reshape(rows, (1, 1, tokens, rows.shape[-1]))
    return graph.transpose(flat, (0, 3, 1, 2))


def by_row(graph: Graph, x: Value, name: str) -> Value:
    """Return [1, channels, 1, T] as rows [1, 1, T, channels] under a name."""
    return graph.transpose(x, (0, 2, 3, 1), name)
