"""Find the first layer whose result diverges, then the first operator in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from mobilepack.commands.probing import Call, GraphProbe
from mobilepack.contract.explanation import Growth
from mobilepack.models.causes import Evidence, Observation
from mobilepack.models.graph import arguments, fixed, parameter_names
from mobilepack.models.layers import NodeGroup, node_groups, operator_name, value_inputs
from mobilepack.models.quantization import fake_quantise_activations

if TYPE_CHECKING:
    from torch.fx import Node

    from mobilepack.models.exported_session import ExportedSession

_AT_ONCE = 8
"""Layers looked at in one run: each round leaves a ninth of them."""

_NOISE_FACTOR = 4.0
"""A layer may move by so many times what noise on the input moves it; `verify` allows twice of the
logits, whose noise is an average over all layers."""

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

    probe: GraphProbe
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
        ends = [self._end(group) for group in groups]
        nodes = [node for node in ends if node is not None]
        if not nodes:
            return [None] * len(groups)
        last = self.wrong
        values = self.probe.read(nodes, self.calls[: last + 1], frozenset({last}))
        expected = self.probe.reference(nodes, self.calls[last])
        verdicts: list[bool | None] = []
        for group, node in zip(groups, ends, strict=True):
            if node is None or last not in values.get(node, {}):
                verdicts.append(None)
                continue
            clean, moved = expected[node]
            error = distance(values[node][last], clean)
            limit = self.probe.tolerances.layer
            if self.probe.quantisation.group:
                limit = max(limit, _NOISE_FACTOR * distance(moved, clean))
            limit = _FINITE if self.infinite else limit
            self.growth[group.name] = Growth(layer=group.name, error=error, limit=limit)
            verdicts.append(not error <= limit)
        return verdicts

    def _end(self, group: NodeGroup) -> Node | None:
        """Return the last node of a layer that can be read."""
        return next((n for n in reversed(group.nodes) if self.probe.readable(n)), None)

    def culprit(self, index: int) -> Culprit | None:
        """Return the first operator of a layer that does not compute what its inputs give."""
        groups = node_groups(self.probe.exported)
        before = [node for group in groups[:index] for node in group.nodes]
        watch = _Watch(self.probe, self.calls, groups[index], before)
        for node in groups[index].nodes:
            for number, one in watch.seen.get(node, ()):
                error = distance(one.found, one.expected)
                if not error <= self._limit(node):
                    observed = [found for _, found in watch.seen[node]]
                    evidence = self._evidence(groups[index], node, observed)
                    unread = watch.unread(node, number)
                    return Culprit(groups[index], node, number, error, evidence, unread)
        return None

    def closer(self, indices: Iterable[int]) -> bool:
        """Look closer at some layers; see `GraphProbe.closer`."""
        groups = node_groups(self.probe.exported)
        inside = [node for index in indices for node in groups[index].nodes]
        every = [node for group in groups for node in group.nodes]
        outside = {i for node in inside for i in value_inputs(node, every)}
        return self.probe.closer(list(dict.fromkeys([*outside, *inside])), self.calls)

    def all_states_wrong(self, index: int) -> bool:
        """Tell whether every value of a layer that can be read diverges in the wrong call."""
        group = node_groups(self.probe.exported)[index]
        nodes = [node for node in group.nodes if self.probe.readable(node)]
        last = self.wrong
        values = self.probe.read(nodes, self.calls[: last + 1], frozenset({last}))
        expected = self.probe.reference(nodes, self.calls[last])
        limit = _FINITE if self.infinite else self.probe.tolerances.layer
        return all(not distance(values[n][last], expected[n][0]) <= limit for n in values)

    def _limit(self, node: Node) -> float:
        if self.infinite:
            return _FINITE
        limits = self.probe.tolerances
        return limits.operators.get(operator_name(node), limits.others)

    def _evidence(
        self, group: NodeGroup, node: Node, observations: Sequence[Observation]
    ) -> Evidence:
        from mobilepack.models.exported_session import ExportedSession

        probe = self.probe
        names = parameter_names(probe.exported)
        used = [names.get(getattr(argument, "name", ""), "") for argument in arguments(node)]
        weights, tables = probe.parameters, probe.tables
        constants = {
            name: tables[name] if name in tables else weights.tensor(name)
            for name in used
            if name and not name.startswith("caches.")
        }
        dims = [fixed(arguments(n)[3], 3) for n in group.nodes if operator_name(n) == "attention"]
        linear = operator_name(node) == "linear"
        session = ExportedSession(probe.exported, weights, tables, probe.quantisation)
        return Evidence(
            node=node,
            observations=tuple(observations),
            constants=constants,
            weight=session.weight(used[1]) if linear else None,
            mapped=fake_quantise_activations if probe.quantisation.group else lambda x: x,
            head_dim=dims[0] if dims else 0,
            group=probe.block,
            limits=probe.limits(node),
        )


class _Watch:
    """Every operator of a layer, on the values that the program itself gave it.

    What the program does not show is computed from what it shows; what a layer is given by those
    before it, and cannot be read, is eager PyTorch's, for those layers are known to be good.

    Attributes:
        seen: Per node that can be read, the number of each call with what went in and came out.
    """

    def __init__(
        self, probe: GraphProbe, calls: Sequence[Call], group: NodeGroup, before: Sequence[Node]
    ) -> None:
        from mobilepack.models.exported_session import ExportedSession

        self._probe, self._group, self._before = probe, group, before
        self._outside = {i for n in group.nodes for i in value_inputs(n, before)}
        every = frozenset(range(len(calls)))
        wanted = [n for n in (*self._outside, *group.nodes) if probe.readable(n)]
        self._values = probe.read(wanted, calls, every) if wanted else {}
        given = probe.references(self._outside, calls)
        self.seen: dict[Node, list[tuple[int, Observation]]] = {}
        session = ExportedSession(
            probe.exported, probe.parameters, probe.tables, probe.quantisation
        )
        for number, call in enumerate(calls):
            self._call(session, number, call, {n: pair[0] for n, pair in given[number].items()})

    def _call(
        self,
        session: ExportedSession,
        number: int,
        call: Call,
        known: dict[Node, torch.Tensor],
    ) -> None:
        from mobilepack.models.exported_session import ExportedCall

        ran = ExportedCall(session, call.ids[call.start : call.end], call.start, None)
        for node in self._outside:
            known[node] = self._values.get(node, {}).get(number, known[node])
            ran.give(node, known[node])
        for node in self._group.nodes:
            inputs = value_inputs(node, [*self._before, *self._group.nodes])
            made = ran.compute(node)
            found = self._values.get(node, {}).get(number)
            if found is not None:
                held = self._probe.limits(node)
                made = made if held is None else made.clamp(*held)
                given = tuple(known[i] for i in inputs)
                one = Observation(call.item, call.start, given, found, made.reshape(found.shape))
                self.seen.setdefault(node, []).append((number, one))
            known[node] = made if found is None else found.reshape(made.shape)
            ran.give(node, known[node])

    def unread(self, node: Node, number: int) -> tuple[Node, ...]:
        """Return the operators of the layer before a node that could not be read, first first."""
        found: list[Node] = []
        waiting = list(value_inputs(node, self._group.nodes))
        while waiting:
            one = waiting.pop(0)
            if number not in self._values.get(one, {}) and one not in found:
                found.append(one)
                waiting += value_inputs(one, self._group.nodes)
        order = self._group.nodes
        return tuple(sorted(found, key=order.index))


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
