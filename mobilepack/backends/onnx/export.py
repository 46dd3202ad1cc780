"""Export the growing form with torch.onnx; weights stream from the checkpoint into the file.

The names and shapes of inputs and outputs are those that Optimum, Transformers.js and ONNX Runtime
GenAI share: `input_ids`, `position_ids`, `past_key_values.N.key|value`, `logits`,
`present.N.key|value`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mobilepack.models.spec import DecoderSpec

if TYPE_CHECKING:
    import torch

OPSET = 20
"""The first with `Gelu` (ONNX operator changelog); ONNX Runtime 1.17 and later run it."""

WEIGHTS = "model.onnx.data"
_SMALL_BYTES = 1024


class NamedWeights(Protocol):
    """Parameters by name; `models.weights.Weights` is one."""

    def tensor(self, name: str) -> torch.Tensor:
        """Return a whole parameter as float32."""

    def identity(self, name: str) -> str:
        """Return a text that is equal for parameters made of the same bytes."""


def input_names(layers: int) -> list[str]:
    """Return the names of the inputs, in order."""
    return ["input_ids", "position_ids", *_cache_names("past_key_values", layers)]


def output_names(layers: int) -> list[str]:
    """Return the names of the outputs, in order."""
    return ["logits", *_cache_names("present", layers)]


def _cache_names(kind: str, layers: int) -> list[str]:
    return [f"{kind}.{index}.{half}" for index in range(layers) for half in ("key", "value")]


def export_onnx(
    spec: DecoderSpec,
    weights: NamedWeights,
    tables: Mapping[str, torch.Tensor],
    lengths: tuple[int, int],
    path: Path,
    on_share: Callable[[float], None],
) -> int:
    """Write `path` and, beside it, its weights.

    Args:
        spec: A model of attention and feed-forward blocks.
        weights: Its parameters; each is in memory only while it is written.
        tables: Of positions, see `models.tables`.
        lengths: `max_seq_len`, and tokens that one call takes at most.
        path: Of the `.onnx` file.
        on_share: Told how much of the weights is written, 0 to 1.

    Returns:
        How many operators the graph has.
    """
    import onnx_ir as ir
    import onnxscript.optimizer

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, aloud
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its pytree
        model = _graph(spec, *lengths)
    _fill(model, weights, tables, on_share)
    onnxscript.optimizer.optimize_ir(model, input_size_limit=_SMALL_BYTES)
    model.producer_name = "mobilepack"
    for node in model.graph:
        node.metadata_props.clear()  # stack traces of the exporter
    ir.save(model, path, external_data=WEIGHTS, size_threshold_bytes=_SMALL_BYTES)
    return len(model.graph)


def _graph(spec: DecoderSpec, max_seq_len: int, longest: int) -> Any:
    import torch

    from mobilepack.models.growing import growing, past_shapes

    sequence = torch.export.Dim("sequence", min=1, max=longest)
    past = torch.export.Dim("past", min=0, max=max_seq_len)
    with torch.device("meta"), torch.no_grad():
        ids = torch.zeros(1, 3, dtype=torch.long)
        caches = [torch.zeros(shape) for shape in past_shapes(spec, 5)]
        exported = torch.export.export(
            growing(spec, max_seq_len),
            (ids, ids.clone(), caches),
            dynamic_shapes=({1: sequence}, {1: sequence}, [{2: past} for _ in caches]),
            strict=False,
            # guards on how strides compare are true for every length, which export cannot see
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(
            exported,
            input_names=input_names(len(spec.layers)),
            output_names=output_names(len(spec.layers)),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,  # it would look at the weights, which are not there yet
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx returned no program")
    return program.model


def _fill(
    model: Any,
    weights: NamedWeights,
    tables: Mapping[str, torch.Tensor],
    on_share: Callable[[float], None],
) -> None:
    """Give every initializer its values, read when they are written; equal ones become one."""
    import onnx_ir as ir

    first: dict[str, Any] = {}
    initializers = dict(model.graph.initializers)
    for at, (name, value) in enumerate(initializers.items()):
        if name in tables:
            value.const_value = ir.Tensor(tables[name].numpy(), name=name)
            continue
        identity = weights.identity(name)
        if identity in first:
            ir.convenience.replace_all_uses_with(value, first[identity])
            del model.graph.initializers[name]
            continue
        first[identity] = value

        def read(name: str = name, share: float = (at + 1) / len(initializers)) -> Any:
            tensor = ir.Tensor(weights.tensor(name).numpy(), name=name)
            on_share(share)
            return tensor

        value.const_value = ir.LazyTensor(
            read, dtype=ir.DataType.FLOAT, shape=value.shape, name=name, cache=False
        )
