"""Read intermediate values of a package's QNN program, in the HTP emulator."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from mobilepack.commands.probing import Call, GraphProbe, Tolerances, Values
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import Package
from mobilepack.harness.tapping import TapCall, TapRunner
from mobilepack.models.graph import arguments, operators
from mobilepack.models.layers import operator_name
from mobilepack.models.static_session import decoded, is_cache
from mobilepack.models.streaming import FP32
from mobilepack.models.weights import LoadedModel

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from mobilepack.backends.qnn.graph import Graph

_ATTENTION = torch.ops.mobilepack.attention.default
_ACTIVATIONS = frozenset({"silu", "gelu", "relu", "sigmoid", "tanh"})

EMULATED = Tolerances(3e-2, {}, 1e-2)
"""Half precision on the HTP, whose sums are in half precision too: 6e-3 after three layers of a
random model, in its emulator (QNN 2.49), and 2e-3 for an operator on its own inputs."""
INTEGERS = Tolerances(0.1, {"rope": 0.2, "attention": 0.2, "silu": 0.1, "gelu": 0.1}, 5e-2)
"""16a4w and 16a8w, against eager torch with the program's own rounded weights and the limits of its
encodings: 1e-3 for an operator on its own inputs, 1e-2 for attentions, whose cache has 8 bits. What
is made of several steps may be cut off inside: 0.07 of a rotation whose input was wrong."""

_SAME = 2e-2
"""Between a program and the same with more outputs: those change what the compiler joins, and so
where half precision is rounded."""


class QnnProbe(GraphProbe):
    """Takes what a QNN program gives anyway, and then, of the same graphs with more outputs, all.

    The keys, values and logits are the package's own. For what lies between them the graphs are
    compiled again; the result counts only if its keys, values and logits are the package's too.
    """

    only_states = True

    def __init__(self, package: Package, model: LoadedModel, folder: Path) -> None:
        """Open the package's program.

        Args:
            package: For QNN.
            model: What it was built from.
            folder: For the log and the program with more outputs.
        """
        from mobilepack.harness.host import environment

        manifest = package.manifest
        half = manifest.plan.recipe.linear == "fp16"
        super().__init__(model, manifest.plan, FP32, EMULATED if half else INTEGERS)
        self._package, self._folder = package, folder
        self._runner = TapRunner(folder / "taps.log", env=environment(package.root))
        graph, marks = _landmarks(model, manifest)
        self._marks = aligned(self.exported, marks)
        self.every = not half
        if not half:
            self._round(manifest, graph.matrices())
        nodes = operators(self.exported)
        attentions = [node for node in nodes if node.target is _ATTENTION]
        self._names: dict[Node, str] = {nodes[-1]: "logits"}
        for index, node in enumerate(attentions):
            _, key, value = arguments(node)[:3]
            self._names |= {key: f"k_{index}", value: f"v_{index}"}
        self._inner: Values = {}
        self._limits: dict[Node, tuple[float, float]] = {}
        self._differences: tuple[str, ...] = ()

    def _round(self, manifest: Manifest, matrices: frozenset[str]) -> None:
        """Let the parameters be what the recipe's integers stand for."""
        from mobilepack.backends.qnn.dequantised import Dequantised

        recipe = manifest.plan.recipe
        bits: Literal[4, 8] = 4 if recipe.linear == "16a4w" else 8
        self.parameters = Dequantised(self.model.weights, matrices, bits, recipe.group_size)
        self.block = recipe.group_size

    def readable(self, node: Node) -> bool:
        """Tell whether a node is an output of the program, or has been looked at."""
        return node in self._names or node in self._inner

    def limits(self, node: Node) -> tuple[float, float] | None:
        """See `GraphProbe.limits`; known after `closer`."""
        return self._limits.get(node)

    def differences(self) -> list[tuple[str, Node | None]]:
        """See `GraphProbe.differences`; known after `closer`."""
        return [(text, None) for text in self._differences]

    def read(self, nodes: Sequence[Node], calls: Sequence[Call], keep: frozenset[int]) -> Values:
        """See `GraphProbe.read`; what was looked at is not run again."""
        if all(node in self._inner for node in nodes):
            kept = {node: self._inner[node] for node in nodes}
            return {n: {c: found[c] for c in keep} for n, found in kept.items()}
        package = self._package
        found = self._ran(package.root, package.program, package.manifest, calls, keep)
        return {
            node: {number: values[self._names[node]] for number, values in found.items()}
            for node in nodes
            if node in self._names
        }

    def closer(self, nodes: Collection[Node], calls: Sequence[Call]) -> bool:
        """See `GraphProbe.closer`: compile the graphs with more outputs, and run both programs."""
        from mobilepack.pipeline.qnn_tapped import make_tapped

        taps = {node: self._marks[node] for node in nodes if node in self._marks}
        names = tuple(dict.fromkeys(taps.values()))
        tapped = make_tapped(self.model, self._package.manifest, names, self._folder)
        self._differences = tapped.differences
        every = frozenset(range(len(calls)))
        found = self._ran(tapped.root, tapped.program, tapped.manifest, calls, every)
        tapped.program.unlink()
        package = self._package
        own = self._ran(package.root, package.program, package.manifest, calls, every)
        if not all(_equal(own[n][name], found[n][name]) for n in own for name in own[n]):
            return False
        self._inner = {
            node: {number: _shaped(values[name], node) for number, values in found.items()}
            for node, name in taps.items()
        }
        specs = {spec.name: spec for spec in tapped.manifest.methods[1].outputs}
        for node, name in taps.items():
            if (code := specs[name].encoding) is not None:
                largest = np.iinfo(specs[name].dtype).max
                ends = (-code.zero_point * code.scale, (largest - code.zero_point) * code.scale)
                self._limits[node] = ends
        self.only_states = False
        return True

    def _ran(
        self,
        root: Path,
        program: Path,
        manifest: Manifest,
        calls: Sequence[Call],
        keep: frozenset[int],
    ) -> dict[int, dict[str, torch.Tensor]]:
        """Return all outputs of the calls that are kept, token by token."""
        self.probes += 1
        asked = [TapCall(c.ids[c.start : c.end], c.start, n in keep) for n, c in enumerate(calls)]
        specs = manifest.methods[1].outputs
        ran: dict[int, dict[str, torch.Tensor]] = {}
        for number, arrays in self._runner.run(program, asked, package=root).items():
            count = calls[number].end - calls[number].start
            width = self.plan.prefill_chunk if count > 1 else 1
            ran[number] = {
                s.name: by_token(torch.from_numpy(decoded(a, s.encoding)), s.name, width, count)
                for s, a in zip(specs, arrays, strict=True)
            }
        return ran

    def close(self) -> None:
        """End the child."""
        self._runner.__exit__(None, None, None)


def _landmarks(model: LoadedModel, manifest: Manifest) -> tuple[Graph, list[tuple[str, str]]]:
    """Return the decode graph and its large steps."""
    from mobilepack.backends.qnn.landmarks import Landmarks
    from mobilepack.backends.qnn.sequences import Tracer

    plan, marks = manifest.plan, Landmarks()
    tracer = Tracer(model.spec, plan.max_seq_len, "together", plan.recipe.linear != "fp16")
    graph = tracer.graph(1, plan.max_seq_len - 1, watcher=marks)
    return graph, marks.found(graph)


def aligned(exported: ExportedProgram, marks: Sequence[tuple[str, str]]) -> dict[Node, str]:
    """Return the tensor's name of every node, kind by kind in order.

    A kind that one form has more often than the other is left out.
    """
    nodes: dict[str, list[Node]] = {}
    names: dict[str, list[str]] = {}
    for node in operators(exported):
        name = operator_name(node)
        kind = "activation" if name in _ACTIVATIONS else name
        if name == "mul" and arguments(node)[0] is arguments(node)[1]:  # squared ReLU is one step
            kind = "activation"
            nodes[kind].pop()
        nodes.setdefault(kind, []).append(node)
    for kind, name in marks:
        names.setdefault(kind, []).append(name)
    return {
        node: name
        for kind, found in nodes.items()
        if len(found) == len(names.get(kind, ()))
        for node, name in zip(found, names[kind], strict=True)
    }


def by_token(value: torch.Tensor, name: str, width: int, count: int) -> torch.Tensor:
    """Return the tokens that were fed `[1, count, channels]`; logits are `[1, vocabulary]`.

    Args:
        value: Keys `[1, heads, channels, T]`, values `[1, heads, T, channels]`, or an inner result
            `[1, T, heads, channels]` or `[1, 1, T, channels]`, what is fed padded in front.
        width: T of the method.
    """
    if name == "logits":
        return value.reshape(1, -1)
    if is_cache(name):
        order = (2, 0, 1) if name[0] == "k" else (1, 0, 2)
        value = value[0].permute(order).flatten(1)
    else:  # the head sees one token of many
        value = value.reshape(width if width in value.shape[1:3] else 1, -1)
    return value[-count:].unsqueeze(0)


def _shaped(value: torch.Tensor, node: Node) -> torch.Tensor:
    """Return what the dynamic form has of a node: of some only the last token."""
    return value[:, -1] if len(node.meta["val"].shape) == 2 else value


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two programs gave the same, rounding apart; what is no number is equal."""
    known = torch.isfinite(one) & torch.isfinite(other)
    if not bool((torch.isfinite(one) == torch.isfinite(other)).all()):
        return False
    a, b = one[known].double(), other[known].double()
    return float((a - b).norm()) <= _SAME * max(float(a.norm()), 1e-30)
