"""The decoder as MIL functions: its own blocks, walked with values of a graph for tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from mobilepack.backends.coreml.pieces import LINEAR_OUTPUTS, Span, spans, table_spans
from mobilepack.backends.coreml.steps import Cache, Call, Steps, by_channel, by_row, slots
from mobilepack.backends.coreml.storage import Rows, Storage
from mobilepack.backends.coreml.values import Graph, Value, half
from mobilepack.mil.types import DType, TensorType
from mobilepack.mil.writer import FunctionWriter
from mobilepack.models.blocks import Linear
from mobilepack.models.decoder import Decoder
from mobilepack.models.encodings import coreml_encoding
from mobilepack.models.layer_spec import AttentionSpec
from mobilepack.models.operators import Operators
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.static import windows_of
from mobilepack.models.tables import make_tables

HIDDEN = "hidden"
NEW = "new_"
"""How an output is called that follows an input of the same meaning."""

ID_SLOTS = 16
"""Ids come in whole multiples, the last ones count: 64 bytes of int32."""


@dataclass(frozen=True, slots=True)
class Part:
    """What of the decoder a function holds.

    Attributes:
        embeds: It begins with tokens, else with hidden vectors.
        layers: Blocks.
        heads: It ends with logits, else with hidden vectors.
    """

    embeds: bool
    layers: range
    heads: bool


@dataclass(frozen=True, slots=True)
class Form:
    """How functions are called.

    Attributes:
        max_seq_len: Positions that the position tables hold.
        past: Positions of the cache.
        states: The cache lies in states, else it comes in and the new rows go out.
    """

    max_seq_len: int
    past: int
    states: bool


@dataclass(frozen=True, slots=True)
class _Caches:
    k_cache: Cache
    v_cache: Cache


class _Map(nn.Module):
    """A linear map of the decoder; knows its parameters by name."""

    def __init__(self, walker: DecoderWriter, name: str, bias: bool) -> None:
        super().__init__()
        self._walker, self._name, self._biased = walker, name, bias

    def forward(self, x: Value) -> Value:
        """Map `[1, inputs, 1, T]` to `[1, outputs, 1, T]`."""
        return self._walker.mapped(x, self._name, self._biased)


class DecoderWriter:
    """Writes functions of one package.

    Attributes:
        kinds: What makes the graph of a function, and the decoder's steps in it.
    """

    kinds: tuple[type[Graph], type[Steps]] = (Graph, Steps)

    def __init__(
        self, spec: DecoderSpec, storage: Storage, form: Form, linear: str, group: int
    ) -> None:
        """Prepare.

        Args:
            spec: A model of attention and feed-forward blocks.
            storage: Where weights go.
            form: How functions are called.
            linear: `fp16`, `8w`, `4w` or `4p`.
            group: Rows that share a table of `4p`.
        """
        self.spec, self.form = spec, form
        self._storage, self._linear, self._group = storage, linear, group
        source = storage.source
        self.tied = source.identity("head.weight") == source.identity("embed.weight")
        self._tables = make_tables(spec, form.max_seq_len)
        self._steps = self.kinds[1](cast(Graph, None), self._vector, self._slopes)
        with torch.device("meta"):
            self._decoder = Decoder(spec, form.max_seq_len, cast(Operators, self._steps))
        self._names = {id(t): name for name, t in self._decoder.named_parameters()}
        self._names |= {id(t): name for name, t in self._decoder.named_buffers()}
        _replace_maps(self._decoder, self)

    def write(self, name: str, opset: str, part: Part, tokens: int) -> FunctionWriter:
        """Return a function.

        Args:
            name: Its name.
            opset: For example `CoreML8`.
            part: What it holds.
            tokens: T.
        """
        function = FunctionWriter(name, opset)
        self._steps.graph = graph = self.kinds[0](function)
        ids = self._inputs(graph, part, tokens)
        call = self._call(graph, part, tokens)
        x = self._begin(graph, ids, call) if part.embeds else by_channel(graph, ids, tokens)
        for index in part.layers:
            x = self._block(graph, x, index, call)
        if part.heads:
            graph.output(self._logits(graph, x))
        else:
            graph.output(by_row(graph, x, NEW + HIDDEN))
        for rows in call.new:
            graph.output(rows)
        return function

    # --- inputs ---

    def _inputs(self, graph: Graph, part: Part, tokens: int) -> Value:
        """Return the tokens [1, T], or the hidden vectors [1, 1, T, channels]."""
        if not part.embeds:
            return graph.input(HIDDEN, half(1, 1, tokens, self.spec.hidden_size))
        return _last(graph, "tokens", tokens)

    def _call(self, graph: Graph, part: Part, tokens: int) -> Call:
        spec, form = self.spec, self.form
        call = Call(graph, tokens, form.past)
        mixers = [cast(AttentionSpec, spec.layers[i].mixer) for i in part.layers]
        learned = part.embeds and spec.positions is not None
        if learned or any(m.rope is not None or m.alibi is not None for m in mixers):
            call.positions = _last(graph, "positions", tokens)
        keys = form.past if form.states else slots(form.past + tokens)
        own = {mixer.window or 0 for mixer in mixers}
        call.masks = {
            window: graph.input(f"mask_{window}" if window else "mask", half(1, 1, tokens, keys))
            for window in windows_of(spec)
            if window in own
        }
        if form.states and mixers:
            call.write = graph.input("write", half(1, 1, tokens, form.past))
            written = graph.reduce("reduce_sum", call.write, 2)
            taken = graph.transpose(written, (0, 1, 3, 2))
            call.keep = graph.one("sub", taken.type, x=np.float16(1), y=taken)
        return call

    def _cache(self, graph: Graph, name: str, mixer: AttentionSpec) -> Cache:
        kind = half(1, mixer.n_kv_heads, self.form.past, mixer.head_dim)
        made = graph.state if self.form.states else graph.input
        return Cache(name, made(name, kind))

    # --- the decoder's steps ---

    def _begin(self, graph: Graph, tokens: Value, call: Call) -> Value:
        spec = self.spec
        graph.scope = "embed"
        x = by_channel(graph, self._embedded(graph, tokens), call.tokens)
        if spec.embed_scale != 1.0:
            x = x * spec.embed_scale
        decoder = cast(Any, self._decoder)
        if spec.table_size != spec.hidden_size:
            x = decoder.project_in(x)
        if spec.positions is not None:
            x = x + self._steps.positions(x, decoder.positions.weight, call, 0)
        return cast(Value, decoder._norm("embed_norm", spec.embed_norm, x))

    def _embedded(self, graph: Graph, tokens: Value) -> Value:
        """Return the tokens' rows, [1, T, channels].

        A table that is the head too lies in pieces, for the head's sake; a token is looked up in
        each, and counts where it belongs.
        """
        pieces = self._table_pieces() if self.tied else (Span(0, self.spec.vocab_size),)
        if len(pieces) == 1:
            return graph.gather(self._rows(graph, "embed.weight", pieces[0], 0), tokens, 0)
        each = pieces[0].count
        place = graph.binary("mod", tokens, each)
        total: Value | None = None
        for span in pieces:
            at = place if span.count == each else graph.binary("minimum", place, span.count - 1)
            found = graph.gather(self._rows(graph, "embed.weight", span, 0), at, 0)
            mine = graph.reshape(_inside(graph, tokens, span), (*tokens.shape, 1))
            total = found * mine if total is None else total + found * mine
        return cast(Value, total)

    def _block(self, graph: Graph, x: Value, index: int, call: Call) -> Value:
        layer = self.spec.layers[index]
        graph.scope = f"layer{index}"
        mixer = cast(AttentionSpec, layer.mixer)
        state = _Caches(*(self._cache(graph, f"{kind}_{index}", mixer) for kind in "kv"))
        owner = index if layer.shares is None else layer.shares
        block = cast(Any, self._decoder.layers[str(owner)])
        last = index == len(self.spec.layers) - 1
        return cast(Value, block(x, state, self._decoder.tables, call, last))

    def _logits(self, graph: Graph, x: Value) -> Value:
        """Return the logits, one row for each piece of the vocabulary where they are equal."""
        spec, decoder = self.spec, cast(Any, self._decoder)
        graph.scope = "head"
        x = decoder._norm("norm", spec.norm, x)
        if spec.table_size != spec.hidden_size:
            x = decoder.project_out(x)
        pieces = self._table_pieces()
        name = "embed.weight" if self.tied else "head.weight"
        parts = []
        for span in pieces:
            part = graph.conv(x, self._rows(graph, name, span, 2), self._bias(graph, span))
            if spec.logit_softcap is not None:
                part = graph.same("tanh", part * (1 / spec.logit_softcap)) * spec.logit_softcap
            parts.append(part)
        if len(parts) == 1:
            return graph.reshape(parts[0], (1, spec.vocab_size), "logits")
        equal = len({span.count for span in pieces}) == 1
        flat = [graph.reshape(part, (1, part.shape[1])) for part in parts]
        return graph.concat(flat, 0 if equal else 1, "logits")

    def _bias(self, graph: Graph, span: Span) -> Value | None:
        if not self.spec.head_bias:
            return None
        values = self._storage.source.tensor("head.bias")[span.start : span.stop]
        label = f"head.bias_{span.start}"
        return self._storage.vector(graph, label, values, (span.count,))

    def _table_pieces(self) -> tuple[Span, ...]:
        return table_spans(self.spec.vocab_size)

    def mapped(self, x: Value, name: str, biased: bool) -> Value:
        """Apply a linear map, piece by piece."""
        graph = self._steps.graph
        outputs = self._storage.source.shape(f"{name}.weight")[0]
        scope, graph.scope = graph.scope, name.replace("layers.", "layer").replace(".", "_")
        parts = []
        for span in spans(outputs, LINEAR_OUTPUTS, 32):
            bias = None
            if biased:
                values = self._storage.source.tensor(f"{name}.bias")[span.start : span.stop]
                label = f"{name}.bias_{span.start}"
                bias = self._storage.vector(graph, label, values, (span.count,))
            parts.append(graph.conv(x, self._rows(graph, f"{name}.weight", span, 2), bias))
        whole = graph.concat(parts, 1)
        graph.scope = scope
        return whole

    # --- constants ---

    def _rows(self, graph: Graph, name: str, span: Span, trailing: int) -> Value:
        shape = self._storage.source.shape(name)
        found = coreml_encoding(name, shape, self._linear, self._group, self.tied)
        group = self._group if found == "4p" else 0
        rows = Rows(name, span.start, span.stop, found, group)
        return self._storage.matrix(graph, rows, trailing)

    def _slopes(self, table: torch.Tensor) -> list[float]:
        """Return the linear bias per position of each head."""
        slopes: list[float] = self._tables[self._names[id(table)]][:, 1].tolist()
        return slopes

    def _vector(self, graph: Graph, tensor: torch.Tensor, sizes: tuple[int, ...]) -> Value:
        """Return one of the decoder's vectors, or a table (columns first where `sizes` say so)."""
        name = self._names[id(tensor)]
        if name in self._tables:
            return self._storage.vector(graph, name, self._tables[name].T, sizes)
        if name == "positions.weight" and self.spec.positions is not None:
            offset = self.spec.positions.offset
            span = Span(offset, offset + min(self.form.max_seq_len, sizes[0] - offset))
            return self._rows(graph, name, span, 0)
        return self._storage.vector(graph, name, self._storage.source.tensor(name), sizes)


def _last(graph: Graph, name: str, tokens: int) -> Value:
    """Return the last T of an int32 input that is padded in front, [1, T]."""
    width = slots(tokens, ID_SLOTS)
    given = graph.input(name, TensorType(DType.INT32, (1, width)))
    return graph.slice(given, 1, width - tokens, width)


def _inside(graph: Graph, tokens: Value, span: Span) -> Value:
    """Return 1 where a token belongs to a span, else 0, in half precision."""
    above = graph.compare("greater_equal", tokens, span.start)
    below = graph.compare("less", tokens, span.stop)
    both = graph.one("logical_and", above.type, x=above, y=below)
    return graph.cast_half(both)


def _replace_maps(module: nn.Module, walker: DecoderWriter, before: str = "") -> None:
    for name, child in list(module.named_children()):
        path = f"{before}{name}"
        if isinstance(child, Linear) and path != "positions":  # that is a table
            setattr(module, name, _Map(walker, path, child.bias is not None))
        else:
            _replace_maps(child, walker, f"{path}.")
