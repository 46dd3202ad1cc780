"""Read intermediate values of Core ML programs, in the MIL interpreter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobilepack.commands.probing import HALF, Call, GraphProbe, Values
from mobilepack.contract.package import Package
from mobilepack.models.graph import arguments, operators, parameter_names
from mobilepack.models.layers import operator_name
from mobilepack.models.static import METHODS
from mobilepack.models.streaming import FP32
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.exported import packaged_parameters

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.backends.coreml.recorded import RecordedStep
    from mobilepack.mil.program import Operation, Program

    _Known = tuple[Node, RecordedStep | None]

_LINEAR = torch.ops.aten.linear.default
_WEIGHTS = {"conv": ("x", "weight"), "linear": ("x", "weight"), "matmul": ("x", "y")}


class MilProbe(GraphProbe):
    """Watches the MIL interpreter, which shows every value.

    Which value is whose is told by the decoder's functions, written again without weights. A
    program that coremltools converted shows what goes into and comes out of its linear maps, which
    are known by the names of their weights.
    """

    def __init__(self, package: Package, model: LoadedModel) -> None:
        """Open the package's program.

        Args:
            package: For Core ML.
            model: What it was built from.
        """
        manifest = package.manifest
        super().__init__(model, manifest.plan, FP32, HALF)
        self.parameters, _ = packaged_parameters(model, manifest.plan, package.root)
        self._package = package
        self._lacking: dict[Node, str] = {}
        self._values = self._own() if manifest.plan.lowering == "fast" else self._converted()
        self._readable = {node for found in self._values.values() for node, _ in found.values()}

    def _own(self) -> dict[str, dict[str, _Known]]:
        """Return what each method's values are, of a program that mobilepack wrote."""
        from mobilepack.backends.coreml.recorded import record_steps
        from mobilepack.mil.opened import open_any
        from mobilepack.pipeline.coreml_functions import wanted_of

        programs = open_any(self._package.program).packages.values()
        functions = [function for one in programs for function in one.functions.values()]
        there = {o.name for f in functions for op in f.block.operations for o in op.outputs}
        nodes, names = operators(self.exported), parameter_names(self.exported)
        keys = [_key(node, names) for node in nodes]
        steps = record_steps(self.model.spec, self.model.weights, wanted_of(self.plan))
        found: dict[str, dict[str, _Known]] = {}
        for method, made in steps.items():
            same = SequenceMatcher(None, keys, [step.name for step in made], autojunk=False)
            pairs = [
                (nodes[block.a + i], made[block.b + i])
                for block in same.get_matching_blocks()
                for i in range(block.size)
            ]
            found[method] = {
                step.value: (node, step) for node, step in pairs if step.value in there
            }
            self._lacking |= {node: step.value for node, step in pairs if step.value not in there}
        return found

    def differences(self) -> list[tuple[str, Node | None]]:
        """See `GraphProbe.differences`."""
        return [(f"it has no value {name}", node) for node, name in self._lacking.items()]

    def _converted(self) -> dict[str, dict[str, _Known]]:
        """Return the same of a program of coremltools; names hold for both methods."""
        from mobilepack.mil.mlpackage import open_mlpackage

        names = parameter_names(self.exported)
        maps = [node for node in operators(self.exported) if node.target is _LINEAR]
        found = tuple(_maps(open_mlpackage(self._package.program), maps, names))
        values: dict[str, _Known] = {given: (arguments(node)[0], None) for _, given, node in found}
        values |= {made: (node, None) for made, _, node in found}
        return dict.fromkeys(METHODS, values)

    def readable(self, node: Node) -> bool:
        """Tell whether the program has a value that is the node's."""
        return node in self._readable

    def read(self, nodes: Sequence[Node], calls: Sequence[Call], keep: frozenset[int]) -> Values:
        """See `GraphProbe.read`."""
        from mobilepack.harness.mil_program import MilProgram

        program = MilProgram(self._package.program, self._package.manifest, 1)
        self.probes += 1
        wanted, values = set(nodes), Values()
        for number, call in enumerate(calls[: max(keep) + 1]):
            count = call.end - call.start
            known = self._values["decode" if count == 1 else "prefill"]
            here = {name: one for name, one in known.items() if one[0] in wanted}

            def observe(
                operation: Operation,
                name: str,
                value: torch.Tensor,
                here: Mapping[str, _Known] = here,
                number: int = number,
                count: int = count,
            ) -> None:
                if name in here:
                    node, step = here[name]
                    rows = _rows(value.float(), node, step)
                    one_token = len(node.meta["val"].shape) == 2
                    kept = rows[-1:] if one_token else rows[-count:].unsqueeze(0)
                    values.setdefault(node, {})[number] = kept

            program.observe = observe if number in keep else None
            program(np.array(call.ids[call.start : call.end], dtype=np.int64), call.start)
        return values


def _key(node: Node, names: Mapping[str, str]) -> str:
    """Return what a node and the step of a program have in common."""
    if node.target is _LINEAR:
        return f"linear {names[arguments(node)[1].name]}"
    return operator_name(node)


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


def _rows(value: torch.Tensor, node: Node, step: RecordedStep | None) -> torch.Tensor:
    """Return a value of a program as `[T, channels]`.

    Ours are `[1, channels, 1, T]`, `[1, heads, head_dim, T]`, embeddings `[1, T, channels]`, and
    logits, in pieces or whole; converted ones `[1, channels, 1, T]` or `[1, ..., T, channels]`.
    """
    if step is None:
        by_channel = value.ndim == 4 and value.shape[2] == 1
        rows = value[:, :, 0].transpose(1, 2) if by_channel else value
        return rows.reshape(-1, rows.shape[-1])
    if value.ndim == 4:
        rows = value[0].flatten(0, 1).T
    else:
        rows = value.reshape(-1, int(node.meta["val"].shape[-1]))
    if not step.pairs:
        return rows
    by_head = rows.unflatten(1, (step.heads, -1))
    paired = by_head[..., : 2 * step.pairs].unflatten(-1, (2, step.pairs)).transpose(-1, -2)
    return torch.cat([paired.flatten(-2), by_head[..., 2 * step.pairs :]], -1).flatten(1)
