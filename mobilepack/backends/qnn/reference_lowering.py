"""Lowering by ExecuTorch's own way (PT2E and its passes): what the fast one is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mobilepack.backends.qnn.compile import compile_program, keep_quantised
from mobilepack.backends.qnn.options import Options
from mobilepack.backends.qnn.quantise import (
    Prepared,
    annotated_quantizer,
    cache_encodings,
    calibrate,
    run_eager,
)
from mobilepack.backends.qnn.reference_rows import fake_quantised_rows
from mobilepack.backends.qnn.request import LowerRequest, LowerResult, mask_value
from mobilepack.contract.manifest import Method, StaticForm
from mobilepack.models.static import (
    METHODS,
    StaticDecoder,
    StaticShape,
    input_names,
    static_decoder,
    windows_of,
)
from mobilepack.models.static_session import StaticSession, integer_methods, static_methods

OnStage = Callable[[str, float], None]
Inputs = Mapping[str, tuple[torch.Tensor, ...]]


def lower_by_executorch(request: LowerRequest, tell: OnStage) -> LowerResult:
    """Lower a model: modules, (observers, calibration, conversion), program."""
    tell("export", 0.0)
    modules = _modules(request)
    mask = mask_value(request.precision)
    inputs = {name: module.example(mask) for name, module in modules.items()}
    form = StaticForm(
        past=request.max_seq_len - 1,
        prefill_tokens=request.prefill_tokens,
        mask_value=mask,
        windows=windows_of(request.spec),
    )
    graphs = {
        name: torch.export.export(module, inputs[name], strict=False).module()
        for name, module in modules.items()
    }
    if request.precision == "fp16":
        return _half(request, form, graphs, inputs, tell)
    return _quantised(request, form, graphs, inputs, tell)


def _modules(request: LowerRequest) -> dict[str, StaticDecoder]:
    from safetensors.torch import load_file

    weights = load_file(request.weights)
    weights |= {name: weights[other] for name, other in request.shared.items()}
    lengths = (request.prefill_tokens, 1)
    return {
        name: static_decoder(
            request.spec,
            StaticShape(tokens, request.max_seq_len, request.max_seq_len - 1, heads=request.heads),
            weights,
        )
        for name, tokens in zip(METHODS, lengths, strict=True)
    }


def _half(
    request: LowerRequest, form: StaticForm, graphs: Mapping[str, Any], inputs: Inputs,
    tell: OnStage,
) -> LowerResult:  # fmt: skip
    tell("compile", 0.0)
    options = Options(request.soc_model, half=True)
    made = compile_program(graphs, inputs, options, None, request.metadata, request.out)
    methods = _methods(request, graphs, inputs)
    return LowerResult(form, methods, made.delegates, made.operators, dict(made.fallback))


def _quantised(
    request: LowerRequest, form: StaticForm, graphs: Mapping[str, Any], inputs: Inputs,
    tell: OnStage,
) -> LowerResult:  # fmt: skip
    if request.precision == "fp16":
        raise ValueError("fp16 is not quantised")
    precision = request.precision
    plain = _methods(request, graphs, inputs)
    prepared = Prepared.of(graphs, lambda: annotated_quantizer(precision, request.soc_model))
    session = StaticSession(form, plain, prepared.run)
    calibrate(session, request.rows, request.prefill_tokens, lambda s: tell("calibrate", s))
    prepared.join()
    ranges = prepared.ranges()
    converted = prepared.convert()
    encodings = cache_encodings(converted["decode"], input_names(request.spec))
    tell("reference", 0.0)
    rows, greedy = fake_quantised_rows(request, form, plain, converted["decode"], tell)
    tell("compile", 0.0)
    made = compile_program(
        converted,
        inputs,
        Options(request.soc_model, half=False),
        keep_quantised(len(form.windows)),
        request.metadata,
        request.out,
    )
    return LowerResult(
        form,
        integer_methods(plain, encodings),
        made.delegates,
        made.operators,
        dict(made.fallback),
        ranges=ranges,
        rows=rows,
        greedy=greedy,
    )


def _methods(
    request: LowerRequest, graphs: Mapping[str, Any], inputs: Inputs
) -> tuple[Method, ...]:
    """Return the description of methods in floats."""
    names = input_names(request.spec)
    made = {name: run_eager(graphs[name], _arrays(values)) for name, values in inputs.items()}
    shapes = {
        name: [(tuple(a.shape), str(a.dtype)) for a in _arrays(values)]
        for name, values in inputs.items()
    }
    outputs = {
        name: [(tuple(a.shape), str(a.dtype)) for a in arrays] for name, arrays in made.items()
    }
    return static_methods(names, shapes, outputs)


def _arrays(tensors: Sequence[torch.Tensor]) -> list[np.ndarray[Any, Any]]:
    return [tensor.numpy() for tensor in tensors]
