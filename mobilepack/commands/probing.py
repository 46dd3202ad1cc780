"""Read intermediate values of a package's own XNNPACK program, and those of eager PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mobilepack.contract.package import Package
from mobilepack.harness.tapping import TapCall, TapRunner
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.lower import runner_metadata
from mobilepack.pipeline.reference import PERTURBATION, quantisation_of

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.backends.xnnpack.taps import Tap

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


class ProgramProbe:
    """Taps into the program of a package; use it in a `with`.

    Attributes:
        probes: Programs that were run.
    """

    def __init__(self, package: Package, model: LoadedModel, folder: Path) -> None:
        """Export and lower the package's model again, without weights, and read the program.

        Args:
            package: Of the fast lowering.
            model: What it was built from.
            folder: For tapped programs and the log.
        """
        from mobilepack.backends.xnnpack.lower import Lowering
        from mobilepack.backends.xnnpack.taps import Taps
        from mobilepack.models.spec import parameter_shapes
        from mobilepack.models.tables import make_tables

        plan = package.manifest.plan
        self.model, self.plan, self._folder = model, plan, folder
        self.exported = export_decoder(model.spec, plan.max_seq_len, plan.prefill_chunk)
        self.tables = make_tables(model.spec, plan.max_seq_len)
        self.quantisation = quantisation_of(plan.recipe)
        identities = {name: model.weights.identity(name) for name in parameter_shapes(model.spec)}
        lowering = Lowering(self.exported, plan.recipe, identities, plan.max_seq_len)
        lowered = lowering.run(runner_metadata(model, plan))
        self._taps = Taps(package.program, lowering, lowered, self.exported)
        self._runner = TapRunner(folder / "taps.log")
        self.probes = 0

    def differences(self) -> list[tuple[str, Node | None]]:
        """Return where the program is built otherwise than a fresh lowering."""
        return [(str(one), node) for one, node in self._taps.differences()]

    def read(self, nodes: Sequence[Node], calls: Sequence[Call], keep: frozenset[int]) -> Values:
        """Run all calls and return the nodes' values in those that are kept.

        A node whose value the program does not hold anywhere is left out.
        """
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

    def reference(
        self, nodes: Sequence[Node], call: Call
    ) -> dict[Node, tuple[torch.Tensor, torch.Tensor]]:
        """Return eager values of a call, and the same with noise on the embedded tokens."""
        from mobilepack.models.observed import observed
        from mobilepack.models.streaming import Lane

        ids = call.ids[: call.end]
        lanes = [Lane(ids, self.quantisation, noise) for noise in (0.0, PERTURBATION)]
        seen = observed(self.exported, self.model.weights, self.tables, lanes, nodes)
        found = {}
        for node, (clean, moved) in seen.items():
            one_token = len(node.meta["val"].shape) == 2
            span = slice(call.end - 1, call.end) if one_token else slice(call.start, call.end)
            found[node] = (clean[:, span], moved[:, span])
        return found

    def close(self) -> None:
        """End the child."""
        self._runner.__exit__(None, None, None)
