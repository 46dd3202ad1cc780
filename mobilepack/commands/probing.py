"""Read intermediate values of a package's own XNNPACK program, and those of eager PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mobilepack.contract.manifest import BuildPlan
from mobilepack.contract.package import Package
from mobilepack.harness.tapping import TapCall, TapRunner
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.lower import runner_metadata
from mobilepack.pipeline.reference import PERTURBATION, quantisation_of

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.backends.xnnpack.taps import Tap
    from mobilepack.models.streaming import Parameters, Quantisation

Values = dict["Node", dict[int, torch.Tensor]]
"""Per node, its value `[1, seq, channels]` or `[1, channels]` by the number of the call."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the run that is looked into.

    Attributes:
        item: Number of its prompt.
        name: Of the prompt's check.
        ids: All ids of the prompt.
        start, end: Positions that the call feeds, `end` exclusive.
    """

    item: int
    name: str
    ids: tuple[int, ...]
    start: int
    end: int

    def __str__(self) -> str:
        kind = "decode step" if self.end - self.start == 1 and self.start else "prefill"
        return f"{kind}, positions {self.start} to {self.end - 1} of {self.name!r}"


@dataclass(frozen=True, slots=True)
class Tolerances:
    """What roundings of a program's kind may do.

    Attributes:
        layer: Least limit of a layer's result, against eager.
        operators: Of an operator's result, against what its own inputs give, by its name.
        others: Of every other operator.
    """

    layer: float
    operators: Mapping[str, float]
    others: float


EXACT = Tolerances(2e-5, {}, 2e-5)
"""Float32: ten times what 30 layers measured (2.3e-6)."""
INTEGERS = Tolerances(2e-5, {"linear": 1e-2, "attention": 2e-2}, 2e-5)
"""8da4w: int8 steps that fall the other way, products in half precision. Measured 1e-4 and 3e-4 on
the embedded model; a layer's limit is its own noise."""
HALF = Tolerances(6e-3, {"attention": 6e-3}, 4e-3)
"""Half precision: 11 bits (5e-4) per operation and some ten operations; a layer's result was 1.7e-3
off after eight layers of the embedded model, an operator's 1e-3."""


class GraphProbe(ABC):
    """Reads values of a program by the nodes of the exported decoder; use it in a `with`.

    Attributes:
        exported: The decoder's graph.
        parameters: The numbers that the program's weights stand for.
        quantisation: How eager PyTorch must round to be its equal.
        probes: Runs so far.
        only_states: Whether nothing of a layer can be read but its keys and values.
        every: Whether a layer's limit is too wide to tell that those before it are right.
        block: Columns of a weight that share a scale; 0 without.
    """

    only_states = False
    every = False

    def __init__(
        self,
        model: LoadedModel,
        plan: BuildPlan,
        quantisation: Quantisation,
        tolerances: Tolerances,
    ) -> None:
        """Export the decoder without weights."""
        from mobilepack.models.tables import make_tables

        self.model, self.plan = model, plan
        self.parameters: Parameters = model.weights
        self.quantisation, self.tolerances = quantisation, tolerances
        self.exported = export_decoder(model.spec, plan.max_seq_len, plan.prefill_chunk)
        self.tables = make_tables(model.spec, plan.max_seq_len)
        self.block = quantisation.group
        self.probes = 0

    @abstractmethod
    def readable(self, node: Node) -> bool:
        """Tell whether the program holds a node's value anywhere."""

    @abstractmethod
    def read(self, nodes: Sequence[Node], calls: Sequence[Call], keep: frozenset[int]) -> Values:
        """Run all calls and return the nodes' values in those that are kept.

        A node whose value the program does not hold anywhere is left out.
        """

    def closer(self, nodes: Collection[Node], calls: Sequence[Call]) -> bool:
        """Make more nodes readable, where that takes a run of its own.

        Args:
            nodes: Those of some layers.
            calls: In which they are going to be read.

        Returns:
            Whether what can be read is the package's own.
        """
        return True

    def limits(self, node: Node) -> tuple[float, float] | None:
        """Return the least and largest number that a node's encoding holds, None without one."""
        return None

    def differences(self) -> list[tuple[str, Node | None]]:
        """Return where the program is built otherwise than a fresh lowering."""
        return []

    def close(self) -> None:  # noqa: B027 - most start nothing
        """End what was started."""

    def reference(
        self, nodes: Collection[Node], call: Call
    ) -> dict[Node, tuple[torch.Tensor, torch.Tensor]]:
        """Return eager values of a call, and the same with noise on the embedded tokens."""
        (found,) = self.references(nodes, [call])
        return found

    def references(
        self, nodes: Collection[Node], calls: Sequence[Call]
    ) -> list[dict[Node, tuple[torch.Tensor, torch.Tensor]]]:
        """Return the same of several calls; each prompt is computed once."""
        from mobilepack.models.observed import observed
        from mobilepack.models.streaming import Lane

        ends: dict[int, Call] = {}
        for call in calls:
            if call.item not in ends or call.end > ends[call.item].end:
                ends[call.item] = call
        seen = {
            item: observed(
                self.exported,
                self.parameters,
                self.tables,
                [Lane(c.ids[: c.end], self.quantisation, noise) for noise in (0.0, PERTURBATION)],
                nodes,
            )
            for item, c in ends.items()
        }
        return [
            {
                node: (a[:, _span(node, c)], b[:, _span(node, c)])
                for node, (a, b) in seen[c.item].items()
            }
            for c in calls
        ]


def _span(node: Node, call: Call) -> slice:
    one_token = len(node.meta["val"].shape) == 2
    return slice(call.end - 1, call.end) if one_token else slice(call.start, call.end)


class ProgramProbe(GraphProbe):
    """Taps into a package's own XNNPACK program."""

    def __init__(self, package: Package, model: LoadedModel, folder: Path) -> None:
        """Lower the package's model again, without weights, and read the program.

        Args:
            package: Of the fast lowering.
            model: What it was built from.
            folder: For tapped programs and the log.
        """
        from mobilepack.backends.xnnpack.lower import Lowering
        from mobilepack.backends.xnnpack.taps import Taps
        from mobilepack.models.spec import parameter_shapes

        plan = package.manifest.plan
        quantisation = quantisation_of(plan.recipe)
        plain = not quantisation.group and quantisation.kv_cache == "fp32"
        super().__init__(model, plan, quantisation, EXACT if plain else INTEGERS)
        self._folder = folder
        identities = {name: model.weights.identity(name) for name in parameter_shapes(model.spec)}
        lowering = Lowering(self.exported, plan.recipe, identities, plan.max_seq_len)
        lowered = lowering.run(runner_metadata(model, plan))
        self._taps = Taps(package.program, lowering, lowered, self.exported)
        self._runner = TapRunner(folder / "taps.log")

    def readable(self, node: Node) -> bool:
        """Tell whether there is a tap in any branch."""
        return any(self._taps.tap(node, many=many) is not None for many in (True, False))

    def differences(self) -> list[tuple[str, Node | None]]:
        """See `GraphProbe.differences`."""
        return [(str(one), node) for one, node in self._taps.differences()]

    def read(self, nodes: Sequence[Node], calls: Sequence[Call], keep: frozenset[int]) -> Values:
        """See `GraphProbe.read`."""
        from mobilepack.backends.xnnpack.taps import write_tapped

        branches = sorted({calls[n].end - calls[n].start > 1 for n in keep})
        if self.plan.prefill_chunk == 1:
            branches = [False]
        taps: list[tuple[Node, bool, Tap]] = []
        for many in branches:
            found = ((node, self._taps.tap(node, many=many)) for node in nodes)
            taps += [(node, many, tap) for node, tap in found if tap is not None]
        path = self._folder / "tapped.pte"
        write_tapped(path, self._taps.found, self._taps.path, [tap for _, _, tap in taps])
        self.probes += 1
        try:
            asked = [
                TapCall(c.ids[c.start : c.end], c.start, n in keep) for n, c in enumerate(calls)
            ]
            outputs = self._runner.run(path, asked)
        finally:
            path.unlink(missing_ok=True)
        values: Values = {node: {} for node, _, _ in taps}
        for number, arrays in outputs.items():
            at = 1  # after the logits
            many = calls[number].end - calls[number].start > 1
            for node, branch, tap in taps:
                parts = arrays[at : at + len(tap.tensors)]
                at += len(tap.tensors)
                if branch == many or len(branches) == 1:
                    values[node][number] = torch.from_numpy(tap.assembled(parts))
        return {node: found for node, found in values.items() if found}

    def close(self) -> None:
        """End the child."""
        self._runner.__exit__(None, None, None)
