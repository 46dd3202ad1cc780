"""Find the first layer whose result diverges, then the first operator in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from mobilepack.commands.probing import Call, ProgramProbe
from mobilepack.contract.explanation import Growth
from mobilepack.models.causes import Evidence, Observation
from mobilepack.models.graph import arguments, fixed, parameter_names
from mobilepack.models.layers import NodeGroup, node_groups, operator_name, value_inputs
from mobilepack.models.quantization import fake_quantise_activations

if TYPE_CHECKING:
    from torch.fx import Node

_AT_ONCE = 8
"""Layers looked at in one run: each round leaves a ninth of them."""

EXACT = 2e-5
"""Limit of a layer's result in float32: ten times what 30 layers measured (2.3e-6)."""
_NOISE_FACTOR = 4.0
"""A layer may move by so many times what noise on the input moves it; `verify` allows twice of the
logits, whose noise is an average over all layers."""

_OPERATOR_LIMITS = {"linear": 1e-2, "attention": 2e-2}
"""Of a quantised program's operator, against what its own inputs give: int8 steps that fall the
other way, products in half precision. Measured 1e-4 and 3e-4 on the embedded model."""
_OPERATOR_EXACT = 2e-5
_FINITE = 1e30  # any error of numbers that are numbers


@dataclass(frozen=True, slots=True)
class Culprit:
    """The first operator that does not compute what its inputs give.

    Attributes:
        call: Number of the first call in which it does not.
        error: Of its result there.
        unread: Operators between it and what could be read, the first of them at fault as likely.
    """

    group: NodeGroup
    node: Node
    call: int
    error: float
    evidence: Evidence
    unread: tuple[Node, ...] = ()


@dataclass(slots=True)
class Bisection:
    """Looks into one program.

    Attributes:
        calls: From the first of the run to some after the wrong one.
        wrong: Number of the call that is looked into layer by layer.
        infinite: Whether that call gave NaN or infinities: then only these are looked for, and
            roundings on the way to them are let pass.
    """

    probe: ProgramProbe
    calls: Sequence[Call]
    wrong: int
    infinite: bool = False
    growth: dict[str, Growth] = field(default_factory=dict)

    def first_layer(self) -> int | None:
        """Return the first layer whose result in the last call diverges, None if none does."""
        groups = node_groups(self.probe.exported)
        low, high = -1, len(groups)  # the last that is known to be good, the first known to be bad
        while inside := range(low + 1, high):
            asked = _spread(inside)
            verdicts = self._diverging([groups[index] for index in asked])
            found = dict(zip(asked, verdicts, strict=True))
            high = min((index for index, bad in found.items() if bad), default=high)
            good = [index for index, bad in found.items() if bad is False and index < high]
            low = max(good, default=low)
            if len(asked) == len(inside) or set(verdicts) == {None}:
                break
        return high if high < len(groups) else None

    def _diverging(self, groups: Sequence[NodeGroup]) -> list[bool | None]:
        """Say of each layer whether its result diverges; None where it cannot be read."""
        nodes = [group.last for group in groups]
        last = self.wrong
        values = self.probe.read(nodes, self.calls[: last + 1], frozenset({last}))
        expected = self.probe.reference(nodes, self.calls[last])
        verdicts: list[bool | None] = []
        for group in groups:
            if group.last not in values:
                verdicts.append(None)
                continue
            clean, moved = expected[group.last]
            error = distance(values[group.last][last], clean)
            limit = max(EXACT, _NOISE_FACTOR * distance(moved, clean))
            if not self.probe.quantisation.group and self.probe.quantisation.kv_cache == "fp32":
                limit = EXACT
            limit = _FINITE if self.infinite else limit
            self.growth[group.name] = Growth(layer=group.name, error=error, limit=limit)
            verdicts.append(not error <= limit)
        return verdicts

    def culprit(self, index: int) -> Culprit | None:
        """Return the first operator of a layer that does not compute what its inputs give."""
        from mobilepack.models.exported_session import ExportedCall, ExportedSession

        probe = self.probe
        groups = node_groups(probe.exported)
        group, before = groups[index], [n for g in groups[:index] for n in g.nodes]
        outside = {i for n in group.nodes for i in value_inputs(n, before)}
        every = frozenset(range(len(self.calls)))
        values = probe.read([*outside, *group.nodes], self.calls, every)
        quantised = probe.quantisation
        session = ExportedSession(probe.exported, probe.model.weights, probe.tables, quantised)
        watched: dict[Node, list[Observation]] = {}
        numbers: dict[Node, list[int]] = {}
        for number, call in enumerate(self.calls):
            ran = ExportedCall(session, call.ids[call.start : call.end], call.start, None)
            known: dict[Node, torch.Tensor] = {}
            for node in outside:
                if number in values.get(node, {}):
                    known[node] = values[node][number]
                    ran.give(node, known[node])
            for node in group.nodes:
                inputs = value_inputs(node, [*before, *group.nodes])
                if any(one not in known for one in inputs):
                    continue  # nobody knows what it was given
                made = ran.compute(node)
                read = number in values.get(node, {})
                found = values[node][number] if read else made
                known[node] = found
                ran.give(node, found)
                if read:
                    one = Observation(
                        call.item, call.start, tuple(known[i] for i in inputs), found, made
                    )
                    watched.setdefault(node, []).append(one)
                    numbers.setdefault(node, []).append(number)
        for node in group.nodes:
            for place, one in enumerate(watched.get(node, ())):
                error = distance(one.found, one.expected)
                if not error <= self._limit(node):
                    seen = self._evidence(group, node, watched[node])
                    inputs = value_inputs(node, group.nodes)
                    number = numbers[node][place]
                    unread = tuple(i for i in inputs if number not in values.get(i, {}))
                    return Culprit(group, node, number, error, seen, unread)
        return None

    def _limit(self, node: Node) -> float:
        if self.infinite:
            return _FINITE
        quantised = self.probe.quantisation
        name = operator_name(node)
        exact = not quantised.group if name == "linear" else quantised.kv_cache == "fp32"
        return _OPERATOR_EXACT if exact else _OPERATOR_LIMITS.get(name, _OPERATOR_EXACT)

    def _evidence(
        self, group: NodeGroup, node: Node, observations: Sequence[Observation]
    ) -> Evidence:
        from mobilepack.models.exported_session import ExportedSession

        probe = self.probe
        names = parameter_names(probe.exported)
        used = [names.get(getattr(argument, "name", ""), "") for argument in arguments(node)]
        weights, tables = probe.model.weights, probe.tables
        constants = {
            name: tables[name] if name in tables else weights.tensor(name)
            for name in used
            if name and not name.startswith("caches.")
        }
        dims = [fixed(arguments(n)[3], 3) for n in group.nodes if operator_name(n) == "attention"]
        group_size = probe.quantisation.group
        linear = operator_name(node) == "linear"
        session = ExportedSession(probe.exported, weights, tables, probe.quantisation)
        return Evidence(
            node=node,
            observations=tuple(observations),
            constants=constants,
            weight=session.weight(used[1]) if linear else None,
            mapped=fake_quantise_activations if group_size else lambda x: x,
            head_dim=dims[0] if dims else 0,
            group=group_size,
        )


def _spread(inside: Sequence[int]) -> list[int]:
    """Return some of the layers, evenly, the last one always."""
    count = min(_AT_ONCE, len(inside))
    return [inside[len(inside) * (n + 1) // count - 1] for n in range(count)]


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the root mean square difference over the expected root mean square; NaN is far."""
    a, b = found.reshape(-1).double(), expected.reshape(-1).double()
    if a.shape != b.shape or not bool(torch.isfinite(a).all()):
        return float("inf")
    scale = float(b.square().mean().sqrt())
    error = float((a - b).square().mean().sqrt())
    return error / scale if scale else (float("inf") if error else 0.0)
