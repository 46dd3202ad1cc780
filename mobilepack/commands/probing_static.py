"""Read intermediate values of Core ML programs, in the MIL interpreter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobilepack.commands.probing import HALF, Call, GraphProbe, Values
from mobilepack.contract.package import Package
from mobilepack.models.graph import arguments, operators, parameter_names
from mobilepack.models.streaming import FP32
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.exported import packaged_parameters

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.mil.program import Operation, Program

_LINEAR = torch.ops.aten.linear.default
_WEIGHTS = {"conv": ("x", "weight"), "linear": ("x", "weight"), "matmul": ("x", "y")}


class MilProbe(GraphProbe):
    """Watches the MIL interpreter: what goes into and comes out of every linear map.

    A map is known by the name of its weight. What lies between two maps is told from what the
    second one is given.
    """

    def __init__(self, package: Package, model: LoadedModel) -> None:
        """Open the package's program.

        Args:
            package: For Core ML.
            model: What it was built from.
        """
        from mobilepack.mil.mlpackage import open_mlpackage

        manifest = package.manifest
        super().__init__(model, manifest.plan, FP32, HALF)
        self.parameters, _ = packaged_parameters(model, manifest.plan, package.root)
        self._package = package
        names = parameter_names(self.exported)
        maps = [node for node in operators(self.exported) if node.target is _LINEAR]
        found = tuple(_maps(open_mlpackage(package.program), maps, names))
        self._outputs = {made: node for made, _, node in found}
        self._inputs: dict[str, Node] = {given: arguments(node)[0] for _, given, node in found}
        self._readable = {*self._outputs.values(), *self._inputs.values()}

    def readable(self, node: Node) -> bool:
        """Tell whether a node is a linear map or what one is given."""
        return node in self._readable

    def read(self, nodes: Sequence[Node], calls: Sequence[Call], keep: frozenset[int]) -> Values:
        """See `GraphProbe.read`."""
        from mobilepack.harness.mil_program import MilProgram

        manifest = self._package.manifest
        program = MilProgram(self._package.program, manifest, 1)
        self.probes += 1
        wanted, values = set(nodes), Values()
        made = {n: v for n, v in self._outputs.items() if v in wanted}
        given = {n: v for n, v in self._inputs.items() if v in wanted and v not in made.values()}
        for number, call in enumerate(calls[: max(keep) + 1]):
            count = call.end - call.start

            def observe(
                operation: Operation,
                name: str,
                value: torch.Tensor,
                number: int = number,
                count: int = count,
            ) -> None:
                node = made.get(name) or given.get(name)
                if node is not None:
                    kept = values.setdefault(node, {})
                    kept[number] = _by_token(value, count, node)

            program.observe = observe if number in keep else None
            program(np.array(call.ids[call.start : call.end], dtype=np.int64), call.start)
        return values


def _maps(
    program: Program, maps: Sequence[Node], names: Mapping[str, str]
) -> Iterator[tuple[str, str, Node]]:
    """Yield what each map gives and is given, and its node; maps in pieces are left out."""
    labels = {names[arguments(node)[1].name].replace(".", "_"): node for node in maps}
    for function in program.functions.values():
        found: dict[str, list[tuple[str, str]]] = {}
        for op in (op for op in function.block.walk() if op.type in _WEIGHTS):
            given, weight = (op.inputs[name][0] for name in _WEIGHTS[op.type])
            label = _label(weight, labels) if isinstance(weight, str) else None
            if label is not None:
                found.setdefault(label, []).append((op.outputs[0].name, str(given)))
        for label, results in found.items():
            if len(results) == 1:
                yield *results[0], labels[label]


def _label(weight: str, labels: Mapping[str, Node]) -> str | None:
    """Return the parameter that a constant is made of: `p_decoder_layers_0_q_weight_to_fp16`."""
    plain = re.sub(r"^p_decoder_", "", weight)
    fits = [label for label in labels if plain == label or plain.startswith(label + "_")]
    return max(fits, key=len, default=None)


def _by_token(value: torch.Tensor, count: int, node: Node) -> torch.Tensor:
    """Return `[1, channels, 1, T]` or `[1, ..., T, channels]` as `[1, count, channels]`."""
    value = value.float()
    if value.ndim == 4 and value.shape[2] == 1:
        value = value[:, :, 0].transpose(1, 2)
    rows = value.reshape(-1, value.shape[-1])
    one_token = len(node.meta["val"].shape) == 2
    return rows[-1:] if one_token else rows[-count:].unsqueeze(0)
