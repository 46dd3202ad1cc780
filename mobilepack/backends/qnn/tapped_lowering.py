"""Make the emulator's program again, with results of inner steps as outputs, to be looked into.

Graphs, encodings and integers are those of the build: it is traced and quantised by the same code,
and the ranges are the ones that the build calibrated. The hashes say whether it is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from mobilepack.backends.qnn.assemble import Operands
from mobilepack.backends.qnn.boundary import with_floats_outside
from mobilepack.backends.qnn.constants import Constants, QuantisedConstants
from mobilepack.backends.qnn.contexts import FloatOperands, IntegerOperands, tensor_kinds
from mobilepack.backends.qnn.encodings import HEAD, Codes, Groups
from mobilepack.backends.qnn.graph import Graph
from mobilepack.backends.qnn.options import Options
from mobilepack.backends.qnn.programs import compile_programs, hashes
from mobilepack.backends.qnn.request import LowerRequest, LowerResult, Taps, mask_value
from mobilepack.backends.qnn.sequences import Tracer
from mobilepack.contract.manifest import Method, StaticForm, TensorSpec
from mobilepack.models.static import METHODS, windows_of
from mobilepack.models.tables import make_tables

_TEXT_TOKENS = 8
"""Of the graph that, beside the methods', tells which tensors share an encoding: calibration sees
whole texts, and any length beyond one has the same steps."""


def lower_tapped(request: LowerRequest, tell: Callable[[str, float], None]) -> LowerResult:
    """Make the program that a request's `taps` asks for.

    Returns:
        Methods have no inputs, and as outputs only what was tapped.

    Raises:
        KeyError: A range is missing, or no step makes what is to be tapped.
    """
    taps = request.taps
    assert taps is not None  # noqa: S101  the caller has asked
    tell("export", 0.0)
    form = StaticForm(
        past=request.max_seq_len - 1,
        prefill_tokens=request.prefill_tokens,
        mask_value=mask_value(request.precision),
        windows=windows_of(request.spec),
    )
    tracer = Tracer(request.spec, request.max_seq_len, request.heads, request.precision != "fp16")
    lengths = (request.prefill_tokens, 1)
    graphs = {n: tracer.graph(t, form.past) for n, t in zip(METHODS, lengths, strict=True)}
    operands = _operands(request, taps, tracer, graphs)
    graphs = {name: with_floats_outside(graph, operands) for name, graph in graphs.items()}
    tapped = {name: _with_outputs(graph, taps) for name, graph in graphs.items()}
    compile_programs(
        tapped,
        operands,
        Options(request.soc_model, half=request.precision == "fp16"),
        request.context_limit_bytes,
        request.metadata,
        (request.out, None),
        lambda share: tell("compile", share),
    )
    methods = tuple(_method(name, tapped[name], graphs[name], operands) for name in METHODS)
    of_graphs, of_weights = hashes(graphs, operands)
    made = LowerResult(form, methods, delegates=len(graphs), operators=0, fallback={})
    return replace(made, graphs_sha256=of_graphs, weights_sha256=of_weights)


def _operands(
    request: LowerRequest, taps: Taps, tracer: Tracer, graphs: Mapping[str, Graph]
) -> Operands:
    tables = make_tables(request.spec, request.max_seq_len)
    constants = Constants(request.weights, request.shared, tables)
    if request.precision == "fp16":
        return FloatOperands(constants)
    text = tracer.text((0,) * _TEXT_TOKENS, mask_value(request.precision)).graph
    codes = Codes(Groups([*graphs.values(), text]), taps.ranges)
    bits: Literal[4, 8] = 4 if request.precision == "16a4w" else 8
    integers = QuantisedConstants(constants, frozenset({HEAD}), bits, request.block)
    return IntegerOperands(integers, codes)


def _with_outputs(graph: Graph, taps: Taps) -> Graph:
    """Return a graph with more outputs, in the order in which they are asked for."""
    made = {step.output.name: step.output for step in graph.steps}
    return Graph(graph.inputs, graph.outputs + tuple(made[n] for n in taps.names), graph.steps)


def _method(name: str, tapped: Graph, graph: Graph, operands: Operands) -> Method:
    more = tapped.outputs[len(graph.outputs) :]
    kinds = tensor_kinds(more, operands)
    codes = {t.name: operands.code(t) for t in more}
    specs = tuple(
        TensorSpec(
            name=t.name,
            dtype=kinds[t.name],
            shape=t.shape,
            encoding=None if (code := codes[t.name]) is None else code.encoding,
        )
        for t in more
    )
    return Method(name=name, inputs=(), outputs=specs)
