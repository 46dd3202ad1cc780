"""Lower a model without ExecuTorch's passes: trace, calibrate, compile, write.

The graphs go to QNN's compiler as they were traced; ExecuTorch's bindings and file format remain.
A weight is read for all texts at once, quantised once and shared by both methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from mobilepack.backends.qnn.assemble import Operands
from mobilepack.backends.qnn.boundary import with_floats_outside
from mobilepack.backends.qnn.constants import Constants, QuantisedConstants
from mobilepack.backends.qnn.contexts import FloatOperands, IntegerOperands
from mobilepack.backends.qnn.encodings import HEAD, Codes, Coding, Range, code_of
from mobilepack.backends.qnn.fake_quantised import FakeQuantised
from mobilepack.backends.qnn.fast_rows import decoding, fake_quantised_rows
from mobilepack.backends.qnn.graph import Graph
from mobilepack.backends.qnn.options import Options
from mobilepack.backends.qnn.programs import compile_programs, hashes
from mobilepack.backends.qnn.request import LowerRequest, LowerResult, mask_value
from mobilepack.backends.qnn.sequences import Tracer, calibrated
from mobilepack.contract.manifest import Encoding, Method, StaticForm
from mobilepack.contract.reference import GreedyReference, Rows, Variant
from mobilepack.models.static import METHODS, input_names, windows_of
from mobilepack.models.static_session import integer_methods, is_cache, static_methods
from mobilepack.models.tables import make_tables

OnStage = Callable[[str, float], None]


def lower(request: LowerRequest, tell: OnStage, coding: Coding = code_of) -> LowerResult:
    """Lower a model.

    Args:
        coding: Makes encodings of ranges; a test brings ExecuTorch's.
    """
    tell("export", 0.0)
    form = StaticForm(
        past=request.max_seq_len - 1,
        prefill_tokens=request.prefill_tokens,
        mask_value=mask_value(request.precision),
        windows=windows_of(request.spec),
    )
    quantised = request.precision != "fp16"
    tracer = Tracer(request.spec, request.max_seq_len, request.heads, quantised)
    lengths = (request.prefill_tokens, 1)
    graphs = {
        name: tracer.graph(length, form.past) for name, length in zip(METHODS, lengths, strict=True)
    }
    constants = Constants(
        request.weights, request.shared, make_tables(request.spec, request.max_seq_len)
    )
    if quantised:
        return _quantised(request, form, tracer, graphs, constants, tell, coding)
    result = _result(form, _methods(request, graphs), graphs)
    return _compiled(request, graphs, FloatOperands(constants), result, tell)


def _quantised(  # noqa: PLR0913  what `lower` has in hand
    request: LowerRequest,
    form: StaticForm,
    tracer: Tracer,
    graphs: Mapping[str, Graph],
    constants: Constants,
    tell: OnStage,
    coding: Coding,
) -> LowerResult:
    groups, ranges = calibrated(
        list(graphs.values()), tracer, constants, request.rows, form.mask_value,
        lambda share: tell("calibrate", share),
    )  # fmt: skip
    codes = Codes(groups, ranges, coding)
    bits: Literal[4, 8] = 4 if request.precision == "16a4w" else 8
    integers = QuantisedConstants(constants, frozenset({HEAD}), bits, request.block)
    plain = _methods(request, graphs)
    rows, greedy = fake_quantised_rows(
        request,
        tracer,
        lambda model: decoding(form, plain, graphs["decode"], model),
        FakeQuantised(integers, codes),
        tell,
    )
    integers.forget_numbers()
    operands = IntegerOperands(integers, codes)
    compiled = {name: with_floats_outside(graph, operands) for name, graph in graphs.items()}
    methods = integer_methods(plain, _encodings(graphs["decode"], codes))
    result = _result(form, methods, compiled, ranges, rows, greedy)
    return _compiled(request, compiled, operands, result, tell)


def _compiled(
    request: LowerRequest,
    graphs: Mapping[str, Graph],
    operands: Operands,
    result: LowerResult,
    tell: OnStage,
) -> LowerResult:
    """Write the programs; return the result with what is known of them."""
    contexts = compile_programs(
        graphs,
        operands,
        Options(request.soc_model, half=request.precision == "fp16"),
        request.context_limit_bytes,
        request.metadata,
        (request.out, request.phone_out),
        lambda share: tell("compile", share),
    )
    of_graphs, of_weights = hashes(graphs, operands)
    return replace(
        result,
        delegates=sum(len(c.methods) for c in contexts if c.program == request.out.name),
        contexts=contexts,
        graphs_sha256=of_graphs,
        weights_sha256=of_weights,
    )


def _methods(request: LowerRequest, graphs: Mapping[str, Graph]) -> tuple[Method, ...]:
    """Return the description of methods in floats."""
    shapes = {
        name: [(t.shape, str(t.dtype)) for t in graph.inputs] for name, graph in graphs.items()
    }
    outputs = {
        name: [(t.shape, str(t.dtype)) for t in graph.outputs] for name, graph in graphs.items()
    }
    return static_methods(input_names(request.spec), shapes, outputs)


def _encodings(decode: Graph, codes: Codes) -> dict[str, Encoding]:
    """Return how the caches are quantised, by the inputs' names."""
    return {t.name: codes[t.name].encoding for t in decode.inputs if is_cache(t.name)}


def _result(
    form: StaticForm,
    methods: tuple[Method, ...],
    graphs: Mapping[str, Graph],
    ranges: Mapping[str, Range] | None = None,
    rows: Mapping[Variant, Rows] | None = None,
    greedy: tuple[GreedyReference, ...] = (),
) -> LowerResult:
    counts = Counter(step.kind for graph in graphs.values() for step in graph.steps)
    return LowerResult(
        form,
        methods,
        delegates=len(graphs),
        operators=counts.total(),
        fallback={},
        ranges=dict(ranges or {}),
        rows=dict(rows or {}),
        greedy=greedy,
    )
