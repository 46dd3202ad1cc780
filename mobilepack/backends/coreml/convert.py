"""The static form as a Core ML program: two functions of one `.mlpackage`, weights stored once.

coremltools converts the exported graph; weights are compressed by one of its passes in the same
conversion. Inputs and outputs are half precision, as the Neural Engine wants them, and have the
names of the contract.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mobilepack.models.encodings import SMALLEST_COMPRESSED
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.static import (
    METHODS,
    StaticDecoder,
    StaticShape,
    cache_names,
    input_names,
    static_decoder,
)

Compression = Literal["fp16", "8w", "4w"]
_BITS = {"8w": "int8", "4w": "int4"}


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to convert.

    Attributes:
        ios: Least version of iOS, 18 or later.
        compression: Of linear maps; an embedding table has 8 bits at least.
        prefill_tokens: T of `prefill`.
        past: Positions of the cache.
        max_seq_len: Positions that the position tables hold.
        mask_value: What hides a key.
    """

    ios: int
    compression: Compression
    prefill_tokens: int
    past: int
    max_seq_len: int
    mask_value: float


class HalfPrecision(torch.nn.Module):
    """A static decoder whose masks, caches and results are half precision at its borders."""

    def __init__(self, decoder: StaticDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, *rest: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """See `StaticDecoder.forward`."""
        wide = (one.float() for one in rest)
        return tuple(one.half() for one in self.decoder(tokens, positions, *wide))


def convert(
    spec: DecoderSpec, weights: Mapping[str, torch.Tensor], wanted: Conversion, out: Path
) -> None:
    """Write an `.mlpackage` with the functions `prefill` and `decode`.

    Args:
        spec: A model whose blocks are attention and feed-forward.
        weights: Every parameter in float32.
        wanted: Lengths, level and compression.
        out: The package to write; its name ends in `.mlpackage`.

    Raises:
        RuntimeError: coremltools could not convert the graph.
    """
    lengths = {"prefill": wanted.prefill_tokens, "decode": 1}
    parts = {name: out.with_name(f".{name}.mlpackage") for name in METHODS}
    try:
        with quiet(), temporary_files_in(out.parent):
            import coremltools as ct  # warns of itself

            for name, part in parts.items():
                shape = StaticShape(lengths[name], wanted.max_seq_len, wanted.past, heads="split")
                _convert_one(static_decoder(spec, shape, weights), wanted).save(str(part))
            descriptor = ct.utils.MultiFunctionDescriptor()
            for name, part in parts.items():
                descriptor.add_function(str(part), "main", name)
            descriptor.default_function_name = "decode"
            with validated_once():
                ct.utils.save_multifunction(descriptor, str(out))
    finally:
        for part in parts.values():
            shutil.rmtree(part, ignore_errors=True)


def _convert_one(decoder: StaticDecoder, wanted: Conversion) -> Any:
    import coremltools as ct

    tokens, positions, *rest = decoder.example(wanted.mask_value)
    inputs = (tokens, positions, *(one.half() for one in rest))
    exported = torch.export.export(HalfPrecision(decoder).eval(), inputs, strict=False)
    exported = without_aliases(exported.run_decompositions({}))
    with validated_once():
        model = ct.convert(
            exported,
            minimum_deployment_target=_level(wanted.ios),
            compute_precision=ct.precision.FLOAT16,
            compute_units=ct.ComputeUnit.CPU_AND_NE,
            pass_pipeline=_passes(wanted.compression, decoder),
            skip_model_load=True,
        )
    return _named(model, decoder.spec)


def _passes(compression: Compression, decoder: StaticDecoder) -> Any:
    import coremltools as ct
    import coremltools.optimize.coreml as optimize

    # A copy: the class attribute is one object for the whole process.
    passes = ct.PassPipeline(list(ct.PassPipeline.DEFAULT.passes), "mobilepack")
    if compression == "fp16":
        return passes

    def linear(dtype: str) -> Any:
        return optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric",
            dtype=dtype,
            granularity="per_channel",
            weight_threshold=SMALLEST_COMPRESSED,
        )

    # An embedding table in 4 bits with one scale per row loses too much.
    tables = (f"b_decoder_{name}".replace(".", "_") for name, _ in decoder.named_buffers())
    config = optimize.OptimizationConfig(
        global_config=linear(_BITS[compression]),
        op_type_configs={"gather": linear("int8")},
        # What positions rotate by is no weight.
        op_name_configs={f"{name}_to_fp16": None for name in tables},
    )
    passes.append_pass("compression::linear_quantize_weights")
    passes.set_options("compression::linear_quantize_weights", {"config": config})
    return passes


def _named(model: Any, spec: DecoderSpec) -> Any:
    """Give inputs and outputs the names of the contract."""
    import coremltools as ct

    proto = model.get_spec()
    given = [feature.name for feature in proto.description.input]
    made = [feature.name for feature in proto.description.output]
    for old, new in zip(given, input_names(spec), strict=True):
        ct.utils.rename_feature(proto, old, new, rename_inputs=True, rename_outputs=False)
    for old, new in zip(made, output_names(spec), strict=True):
        ct.utils.rename_feature(proto, old, new, rename_inputs=False, rename_outputs=True)
    return ct.models.MLModel(proto, weights_dir=model.weights_dir, skip_model_load=True)


def output_names(spec: DecoderSpec) -> tuple[str, ...]:
    """Return the names of a function's outputs in order; no tensor has two names in a program."""
    return ("logits", *(f"new_{name}" for name in cache_names(spec)))


def without_aliases(exported: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Remove torch 2.13's `alias` nodes, which coremltools 9.0 does not know, in place."""
    graph = exported.graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    return exported


def _level(ios: int) -> Any:
    import coremltools as ct

    return getattr(ct.target, f"iOS{ios}")


@contextlib.contextmanager
def validated_once() -> Iterator[None]:
    """Validate a MIL program after the last pass instead of after each of a hundred.

    Half of a conversion's time is that check (cProfile, coremltools 9.0, 8 layers: 30 of 55 s). The
    last program that a conversion touched is checked at the end, with every check of the original.
    """
    from coremltools.converters.mil.mil.program import Program

    check = Program.validate
    seen: list[tuple[Program, tuple[Any, ...], dict[str, Any]]] = []

    def remember(program: Program, *arguments: Any, **options: Any) -> None:
        seen[:] = [(program, arguments, options)]

    Program.validate = remember
    try:
        yield
    finally:
        Program.validate = check
    for program, arguments, options in seen:
        check(program, *arguments, **options)


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Let temporary files of this process lie in a folder that is gone afterwards.

    coremltools (9.0) keeps every model that it converts or opens as a package of its own in the
    system's temporary folder until the process ends, and for good where it is killed.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(dir=folder, prefix=".coremltools-") as scratch:
        tempfile.tempdir = scratch
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep coremltools' bars, warnings and version complaints off the terminal."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
