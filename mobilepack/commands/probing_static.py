"""Read intermediate values of programs in the static form: Core ML's and QNN's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobilepack.commands.probing import COARSE, EMULATED, HALF, Call, GraphProbe, Values
from mobilepack.contract.package import Package
from mobilepack.harness.tapping import TapCall, TapRunner
from mobilepack.models.graph import arguments, operators, parameter_names
from mobilepack.models.streaming import FP32
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.exported import packaged_parameters

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.mil.program import Operation, Program

_LINEAR = torch.ops.aten.linear.default
_ATTENTION = torch.ops.mobilepack.attention.default
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


class QnnProbe(GraphProbe):
    """Takes the keys, values and logits that a QNN program gives anyway, from the HTP emulator."""

    only_states = True

    def __init__(self, package: Package, model: LoadedModel, folder: Path) -> None:
        """Open the package's program.

        Args:
            package: For QNN.
            model: What it was built from.
            folder: For the log.
        """
        from mobilepack.harness.host import environment

        plan = package.manifest.plan
        half = plan.recipe.linear == "fp16"
        super().__init__(model, plan, FP32, EMULATED if half else COARSE)
        self._package = package
        self._runner = TapRunner(folder / "taps.log", env=environment(package.root))
        nodes = operators(self.exported)
        attentions = [node for node in nodes if node.target is _ATTENTION]
        self._names: dict[Node, str] = {nodes[-1]: "logits"}
        for index, node in enumerate(attentions):
            _, key, value = arguments(node)[:3]
            self._names |= {key: f"k_{index}", value: f"v_{index}"}

    def readable(self, node: Node) -> bool:
        """Tell whether a node is an output of the program."""
        return node in self._names

    def read(self, nodes: Sequence[Node], calls: Sequence[Call], keep: frozenset[int]) -> Values:
        """See `GraphProbe.read`."""
        from mobilepack.models.static_session import decoded

        self.probes += 1
        asked = [TapCall(c.ids[c.start : c.end], c.start, n in keep) for n, c in enumerate(calls)]
        outputs = self._runner.run(self._package.program, asked, package=self._package.root)
        specs = self._package.manifest.methods[1].outputs
        order = {spec.name: index for index, spec in enumerate(specs)}
        values: Values = {}
        for number, arrays in outputs.items():
            count = calls[number].end - calls[number].start
            for node in (node for node in nodes if node in self._names):
                name = self._names[node]
                spec = specs[order[name]]
                found = torch.from_numpy(decoded(arrays[order[name]], spec.encoding))
                values.setdefault(node, {})[number] = _outside(found, name, count)
        return values

    def close(self) -> None:
        """End the child."""
        self._runner.__exit__(None, None, None)


def _outside(value: torch.Tensor, name: str, count: int) -> torch.Tensor:
    """Return keys `[1, heads, channels, T]` and values `[1, heads, T, channels]` token by token."""
    if name == "logits":
        return value.reshape(1, -1)
    by_token = value[0].permute(2, 0, 1) if name.startswith("k_") else value[0].permute(1, 0, 2)
    return by_token.flatten(1)[-count:].unsqueeze(0)
