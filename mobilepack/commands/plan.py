"""Predict what a package will cost, from the checkpoint's headers alone: nothing is built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mobilepack.commands.build import BuildOptions, for_phone
from mobilepack.commands.plan_sizes import (
    QNN_METHODS,
    Component,
    activation_bytes,
    coreml_components,
    kv_bytes_per_token,
    loaded_bytes,
    program_components,
    state_bytes,
)
from mobilepack.contract.manifest import BuildPlan, Recipe
from mobilepack.models.spec import DecoderSpec, parameter_shapes
from mobilepack.models.weights import LoadedModel, open_model
from mobilepack.models.zoo import embedded_path
from mobilepack.pipeline.compress import predicted_spec
from mobilepack.pipeline.plan import plan_build
from mobilepack.target import load_target

# Fitted to the three builds named: CPU seconds of the whole command, flight recorder included.
START_S, PER_LAYER_S, PER_BILLION_S = 5.0, 0.12, 17.5
BUILD_BASIS = (
    "fitted to builds on 2 x86-64 cores with AVX-512: SmolLM2-135M 10 s, Qwen3-0.6B 21 s,"
    " Llama-3.2-1B 29 s; --lowering reference takes minutes"
)
QNN_START_S, QNN_PER_PARAMETER_S, QNN_REFERENCE_PER_LAYER_S = 10.0, 3.7e-7, 10.0
ONNX_START_S, ONNX_PER_LAYER_S = 5.0, 1.9
ONNX_BASIS = "torch.onnx, fitted to 8 and 30 layers: 17 and 61 s on 2 x86-64 cores"
QNN_BASIS = (
    "fitted to 16a4w of the shapes of SmolLM2-135M, Qwen3-0.6B and Llama-3.2-1B on 2 x86-64 cores,"
    " the phone's program reckoned like the emulator's"
)
QNN_REFERENCE_BASIS = "ExecuTorch's own passes: 10 CPU-seconds per layer and method (8, 30 layers)"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a package will cost.

    Attributes:
        file_bytes: Length of model.pte.
        components: Its parts.
        kv_bytes_per_token: Keys and values of one position, all layers.
        kv_cache_bytes: At `max_seq_len`; with the states of recurrent mixers.
        activations_bytes: Intermediate tensors of the longest call.
        ram_bytes: Of the loaded program while it runs: parameters, KV cache and activations.
        build_cpu_s: Estimated CPU seconds of the build.
        build_basis: What that estimate rests on.
    """

    target: str
    source: str
    family: str
    parameters: int
    recipe: Recipe
    max_seq_len: int
    prefill_chunk: int
    file_bytes: int
    components: tuple[Component, ...]
    kv_bytes_per_token: int
    kv_cache_bytes: int
    activations_bytes: int
    ram_bytes: int
    build_cpu_s: float
    build_basis: str


def plan(options: BuildOptions) -> tuple[Prediction, ...]:
    """Predict what `build` with the same options would write, one prediction per target.

    Raises:
        UsageError: The checkpoint, a target or a choice is wrong.
        MissingError: The hub or its cache does not have the model.
    """
    source = str(embedded_path()) if options.model is None else options.model
    opened = open_model(source, revision=options.revision, offline=options.offline)
    try:
        targets = [load_target(name) for name in dict.fromkeys(options.targets)]
        builds = [plan_build(opened, target, for_phone(options, target)) for target in targets]
        return tuple(_predicted(opened, build, options) for build in builds)
    finally:
        opened.close()


def _predicted(opened: LoadedModel, build: BuildPlan, options: BuildOptions) -> Prediction:
    spec = predicted_spec(opened, build, options.choices.compression)
    gone = _numbers(opened.spec) - _numbers(spec)
    return predict(build, spec, opened.weights.parameters() - gone)


def _numbers(spec: DecoderSpec) -> int:
    """Return how many numbers the parameters have, a tied head counted once."""
    shapes = parameter_shapes(spec)
    return sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if name != "head.weight" or not spec.tied_head
    )


def predict(build: BuildPlan, spec: DecoderSpec, parameters: int) -> Prediction:
    """Compute the costs of a build plan from the model's shapes."""
    parts = coreml_components if build.backend == "coreml" else program_components
    components = tuple(parts(spec, build.recipe, build.max_seq_len))
    per_token = kv_bytes_per_token(spec, build.recipe)
    cache = per_token * build.max_seq_len + state_bytes(spec)
    activations = activation_bytes(spec, build.recipe, build.max_seq_len, build.prefill_chunk)
    seconds, basis = build_cpu_s(parameters, len(spec.layers)), BUILD_BASIS
    if build.backend == "qnn":
        seconds, basis = QNN_START_S + QNN_PER_PARAMETER_S * parameters, QNN_BASIS
    if build.backend == "qnn" and build.lowering == "reference":
        layers = QNN_METHODS * len(spec.layers)
        seconds, basis = QNN_START_S + QNN_REFERENCE_PER_LAYER_S * layers, QNN_REFERENCE_BASIS
    if build.backend == "onnx":
        seconds, basis = ONNX_START_S + ONNX_PER_LAYER_S * len(spec.layers), ONNX_BASIS
    return Prediction(
        target=build.target,
        source=build.model.source,
        family=spec.family,
        parameters=parameters,
        recipe=build.recipe,
        max_seq_len=build.max_seq_len,
        prefill_chunk=build.prefill_chunk,
        file_bytes=sum(part.bytes for part in components),
        components=components,
        kv_bytes_per_token=per_token,
        kv_cache_bytes=cache,
        activations_bytes=activations,
        ram_bytes=_loaded(spec, build, components) + cache + activations,
        build_cpu_s=seconds,
        build_basis=basis + ("; compression comes on top" if build.compression else ""),
    )


def _loaded(spec: DecoderSpec, build: BuildPlan, components: Sequence[Component]) -> int:
    if build.backend == "coreml":
        return sum(part.bytes for part in components)  # mapped as they are in the file
    return loaded_bytes(spec, build.recipe)


def build_cpu_s(parameters: int, layers: int) -> float:
    """Return the estimated CPU seconds of a build; see BUILD_BASIS."""
    return START_S + PER_LAYER_S * layers + parameters / 1e9 * PER_BILLION_S
