"""Post-training quantisation of the static form: annotate, calibrate, convert (PT2E).

Both methods are calibrated on the same text, decode steps over a filled cache included; then what
they saw is joined, so that every tensor has one encoding in both and the cache can pass from one
to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.fx import GraphModule, Node

from mobilepack.backends.qnn.annotate import annotate_caches, annotate_head, annotate_slices
from mobilepack.contract.manifest import Encoding
from mobilepack.models.static_session import StaticSession, is_cache

DECODE_SHARE = 0.25
"""Of a calibration row, fed token by token after the rest: the cache is full then."""

_STEPS_AT_MOST = 32


def annotated_quantizer(precision: Literal["16a8w", "16a4w"], soc_model: str) -> Any:
    """Return ExecuTorch's quantizer with our recipe.

    Activations have 16 bits and one scale per tensor, linear maps 8 or 4 bits and a scale per row,
    the head 8 bits, the KV cache 8 bits, tables and norms 16.
    """
    from executorch.backends.qualcomm.quantizer.quant_recipe import QuantGranularity, QuantRecipe
    from executorch.backends.qualcomm.quantizer.quantizer import QnnQuantizer, QuantDtype
    from executorch.backends.qualcomm.serialization.qc_schema import QcomChipset
    from torchao.quantization.pt2e import MinMaxObserver

    dtype = {"16a8w": QuantDtype.use_16a8w, "16a4w": QuantDtype.use_16a4w}[precision]
    recipe = QuantRecipe(
        QuantDtype.use_16a8w,
        False,
        act_observer=MinMaxObserver,
        granularity=QuantGranularity.PER_TENSOR,
    )
    recipe.add_node_target(
        {torch.ops.aten.conv2d.default},
        dtype,
        False,
        act_observer=MinMaxObserver,
        granularity=QuantGranularity.PER_CHANNEL,
    )
    recipe.custom_quant_annotations += [annotate_caches, annotate_head, annotate_slices]
    quantizer = QnnQuantizer(soc_model=QcomChipset[soc_model])
    quantizer.set_recipe(recipe)
    return quantizer


@dataclass(frozen=True, slots=True)
class Prepared:
    """Methods with observers in them."""

    methods: Mapping[str, GraphModule]

    @classmethod
    def of(cls, methods: Mapping[str, GraphModule], quantizer: Callable[[], Any]) -> Prepared:
        """Put observers into exported methods; each has a quantizer of its own."""
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        return cls({name: prepare_pt2e(graph, quantizer()) for name, graph in methods.items()})

    @torch.no_grad()
    def run(self, name: str, inputs: Sequence[Any]) -> list[Any]:
        """Run a method on arrays, for a session."""
        return run_eager(self.methods[name], inputs)

    def join(self) -> None:
        """Let observers of the same place in all methods know what each of them saw.

        Raises:
            ValueError: The methods do not have the same places.
        """
        observed = [_observers(graph) for graph in self.methods.values()]
        first, *others = observed
        for other in others:
            if [key for key, _ in first] != [key for key, _ in other]:
                raise ValueError("the methods' graphs are not alike")
        for _ in range(2):  # places share observers, not the same ones in every method
            for places in zip(*observed, strict=True):
                _widen([observer for _, observer in places])

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the least and largest value of every observed activation, by its node's name."""
        graph = self.methods["decode"]
        modules = dict(graph.named_modules(remove_duplicate=False))
        calls = (node for node in graph.graph.nodes if node.op == "call_module")
        seen = ((node.args[0].name, modules[node.target]) for node in calls)
        return {
            name: (float(observer.min_val), float(observer.max_val))
            for name, observer in seen
            if getattr(observer, "min_val", torch.empty(0)).numel() == 1
        }

    def convert(self) -> dict[str, GraphModule]:
        """Return the fake-quantised methods."""
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        return {name: convert_pt2e(graph) for name, graph in self.methods.items()}


@torch.no_grad()
def run_eager(module: Any, inputs: Sequence[Any]) -> list[Any]:
    """Run a method of eager torch on arrays; returns arrays."""
    outputs = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in inputs))
    return [output.numpy() for output in outputs]


def calibrate(
    session: StaticSession,
    rows: Sequence[tuple[int, ...]],
    prefill_tokens: int,
    on_share: Callable[[float], None],
) -> None:
    """Feed the rows: most of each in whole prefills, the rest token by token."""
    for number, row in enumerate(rows):
        steps = min(_STEPS_AT_MOST, max(1, int(len(row) * DECODE_SHARE)))
        ids, at = np.array(row), 0
        while at < len(row) - steps:
            count = min(prefill_tokens, len(row) - steps - at)
            session(ids[at : at + count], at)
            at += count
        for position in range(at, len(row)):
            session(ids[position : position + 1], position)
        on_share((number + 1) / len(rows))


def _observers(graph: GraphModule) -> list[tuple[str, Any]]:
    """Return every observer with the name of what it observes, in the graph's order.

    What only one length needs (taking the last token) is left out.
    """
    modules = dict(graph.named_modules(remove_duplicate=False))
    found = []
    for node in graph.graph.nodes:
        if node.op == "call_module" and hasattr(modules[node.target], "min_val"):
            source = node.args[0]
            key = _place(source)
            if key:
                found.append((key, modules[node.target]))
    return found


def _place(node: Node) -> str:
    """Return what a node is, in words that do not depend on the method's length."""
    if node.target is torch.ops.aten.slice.Tensor and node.args[1:3] == (2, -1):
        return ""  # `last_token`
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    where = stack[-1][0] if stack else ""
    return f"{where}:{node.target}"


def _widen(observers: Sequence[Any]) -> None:
    least = torch.stack([o.min_val for o in observers]).amin(0)
    largest = torch.stack([o.max_val for o in observers]).amax(0)
    for observer in observers:
        observer.min_val.copy_(least)
        observer.max_val.copy_(largest)


def cache_encodings(graph: GraphModule, names: Sequence[str]) -> dict[str, Encoding]:
    """Return how the caches (by the inputs' names) of a fake-quantised method are quantised."""
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    found: dict[str, Encoding] = {}
    placeholders = [n for n in graph.graph.nodes if n.op == "placeholder"]
    for name, node in zip(names, placeholders, strict=True):
        users = [user for user in node.users if user.target is quantize]
        if users and is_cache(name):
            found[name] = _encoding(users[0])
    return found


def _encoding(quantize: Node) -> Encoding:
    scale, zero = quantize.args[1:3]
    return Encoding(scale=float(scale), zero_point=int(zero))  # type: ignore[arg-type]
