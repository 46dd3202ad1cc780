"""ExecuTorch's own lowering of the same decoder: slow, general, and what the fast path is held to.

The decoder is instantiated with its weights (quantised with the same rule), exported in plain
operators, and goes through `to_edge_transform_and_lower` with the XNNPACK partitioner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mobilepack.backends.xnnpack.storage import Tally
from mobilepack.contract.manifest import Recipe
from mobilepack.models.blocks import Linear
from mobilepack.models.decoder import Decoder, Embedding, with_weights
from mobilepack.models.encodings import embedding_encoding, linear_encoding
from mobilepack.models.operators_plain import PLAIN
from mobilepack.models.quantization import QuantisedRows, quantised_rows
from mobilepack.models.spec import DecoderSpec

Metadata = Mapping[str, int | bool | tuple[int, ...]]
Rows = Callable[[torch.Tensor, str, int], QuantisedRows]
"""Rounds a whole parameter for an encoding and a group size."""


@dataclass(frozen=True, slots=True)
class UpstreamProgram:
    """What the lowering made.

    Attributes:
        delegates: Calls of the XNNPACK delegate.
        operators: Operators inside the delegates.
        kernel_calls: Other operators by name, as the edge graph lists them.
        state_bytes: KV cache.
        activation_bytes: Other planned memory outside the delegates.
        tally: Parameters and bytes per storage format.
    """

    delegates: int
    operators: int
    kernel_calls: Mapping[str, int]
    state_bytes: int
    activation_bytes: int
    tally: Tally


class _QuantisedLinear(nn.Module):
    """A linear map in the dynamic-activation pattern that XNNPACK's partitioner recognises."""

    values: torch.Tensor
    scales: torch.Tensor

    def __init__(self, linear: Linear, group: int, rounding: Rows) -> None:
        super().__init__()
        self.encoding, self.group = linear_encoding(linear.weight.shape[1], group)
        self.limits = (-8, 7) if self.encoding == "int4" else (-127, 127)
        rows = rounding(linear.weight.data, self.encoding, self.group)
        self.register_buffer("values", rows.values)
        self.register_buffer("scales", rows.scales)
        self.register_buffer("zeros", torch.zeros(rows.scales.shape, dtype=torch.int8))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ao = torch.ops.torchao
        block = [1] * (x.dim() - 1) + [x.shape[-1]]
        scale, zero = ao.choose_qparams_affine(
            x, "ASYMMETRIC", block, torch.int8, -128, 127, None, None, torch.int8
        )
        values = ao.quantize_affine(x, block, scale, zero, torch.int8, -128, 127)
        x = ao.dequantize_affine(
            values, block, scale, zero, torch.int8, -128, 127, output_dtype=torch.float32
        )
        weight = ao.dequantize_affine(
            self.values,
            [1, self.group],
            self.scales,
            self.zeros,
            torch.int8,
            *self.limits,
            output_dtype=torch.float32,
        )
        return nn.functional.linear(x, weight, self.bias)


class _QuantisedEmbedding(nn.Module):
    """A table that ExecuTorch's quantised embedding kernels read."""

    values: torch.Tensor
    scales: torch.Tensor

    def __init__(self, embedding: Embedding, kind: str, linear_group: int, rounding: Rows) -> None:
        super().__init__()
        encoding, group = embedding_encoding(embedding.weight.shape[1], kind, linear_group)
        self.eight, self.group = encoding == "int8", group
        rows = rounding(embedding.weight.data, encoding, group)
        if self.eight:
            self.register_buffer("values", rows.values)
            self.register_buffer("scales", rows.scales.squeeze(1))
        else:
            unsigned = rows.values.add(8).to(torch.uint8)
            self.register_buffer("values", unsigned[:, ::2] << 4 | unsigned[:, 1::2])
            self.register_buffer("scales", rows.scales)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        kernels = torch.ops.quantized_decomposed
        if self.eight:
            result: torch.Tensor = kernels.embedding_byte(
                self.values, self.scales, None, -128, 127, tokens
            )
        else:
            result = kernels.embedding_4bit(self.values, self.scales, None, -8, 7, tokens)
        return result


def lower_upstream(  # noqa: PLR0913  what decides a program
    spec: DecoderSpec,
    weights: Mapping[str, torch.Tensor],
    recipe: Recipe,
    lengths: tuple[int, int],
    metadata: Metadata,
    path: Path,
    source: object = None,
) -> UpstreamProgram:
    """Write `path` by ExecuTorch's own way down.

    Args:
        spec: The model.
        weights: Every parameter in float32.
        recipe: How weights are stored.
        lengths: Positions of the cache, longest single call.
        metadata: The runners' constant methods.
        path: The program file.
        source: Where the parameters come from; it may know how they are rounded.
    """
    _register_kernels()
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import (
        EdgeCompileConfig,
        ExecutorchBackendConfig,
        to_edge_transform_and_lower,
    )
    from executorch.exir.passes import MemoryPlanningPass
    from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass

    max_seq_len, chunk = lengths
    decoder = _quantised(with_weights(spec, max_seq_len, weights, PLAIN), recipe, source)
    tally = _tally(decoder)
    states = sum(4 * cache.numel() for name, cache in decoder.named_buffers() if "_cache" in name)
    exported = _export(decoder, min(max_seq_len, chunk))
    before = len(exported.graph.nodes)
    edge = to_edge_transform_and_lower(
        exported,
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
        constant_methods={
            name: list(value) if isinstance(value, tuple) else value
            for name, value in metadata.items()
        },
    )
    calls = _calls(edge.exported_program().graph)
    program = edge.to_executorch(
        ExecutorchBackendConfig(
            extract_delegate_segments=True,
            do_quant_fusion_and_const_prop=True,
            memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
            sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
        )
    )
    with path.open("wb") as file:
        program.write_to_file(file)
    planned = sum(program.executorch_program.execution_plan[0].non_const_buffer_sizes)
    return UpstreamProgram(
        delegates=calls.pop("executorch_call_delegate", 0),
        operators=before - sum(calls.values()),
        kernel_calls=calls,
        state_bytes=states,
        activation_bytes=planned - states,
        tally=tally,
    )


def _tally(decoder: Decoder) -> Tally:
    tally = Tally()
    for module in decoder.modules():
        if isinstance(module, _QuantisedLinear):
            four = module.encoding == "int4"
            size = module.values.numel() // (2 if four else 1)
            label = f"int4 group {module.group}" if four else "int8 per row"
            tally.add(label, module.values.numel(), size + 4 * module.scales.numel())
        elif isinstance(module, _QuantisedEmbedding):
            eight = module.eight
            label = "embedding int8 per row" if eight else f"embedding int4 group {module.group}"
            size = module.values.numel()
            tally.add(label, size * (1 if eight else 2), size + 4 * module.scales.numel())
    shared: dict[int, torch.Tensor] = {p.data_ptr(): p for p in decoder.parameters()}
    for parameter in shared.values():
        tally.add("fp32", parameter.numel(), 4 * parameter.numel())
    return tally


def _register_kernels() -> None:
    import executorch.exir.passes._quant_patterns_and_replacements
    import executorch.extension.llm.custom_ops.custom_ops
    import executorch.kernels.quantized  # noqa: F401
    import torchao.quantization.quant_primitives  # noqa: F401  torchao::quantize_affine


def _quantised(decoder: Decoder, recipe: Recipe, source: object) -> Decoder:
    def rounding(parameter: str) -> Rows:
        return lambda rows, encoding, group: quantised_rows(
            source, parameter, rows, 0, encoding, group
        )

    if recipe.linear != "fp32":
        for prefix, module in list(decoder.named_modules()):
            block = f"{prefix}." if prefix else ""
            for name, child in list(module.named_children()):
                if isinstance(child, Linear):
                    rows = rounding(f"{block}{name}.weight")
                    setattr(module, name, _QuantisedLinear(child, recipe.group_size, rows))
    if recipe.embedding != "fp32":
        rows = rounding("embed.weight")
        embedding = _QuantisedEmbedding(decoder.embed, recipe.embedding, recipe.group_size, rows)
        decoder.add_module("embed", embedding)
    return decoder


def _export(decoder: Decoder, longest: int) -> torch.export.ExportedProgram:
    example = (torch.zeros(1, min(3, longest), dtype=torch.long), torch.zeros(1, dtype=torch.long))
    dynamic: tuple[dict[int, object], dict[int, object]] | None = None
    if longest > 1:
        dynamic = ({1: torch.export.Dim("seq", min=1, max=longest)}, {})
    with torch.no_grad():
        return torch.export.export(decoder, example, dynamic_shapes=dynamic, strict=False)


def _calls(graph: torch.fx.Graph) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_function" and "getitem" not in str(node.target):
            name = getattr(node.target, "__name__", str(node.target))
            counts[name] = counts.get(name, 0) + 1
    return counts
