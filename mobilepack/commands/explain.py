"""verify --explain: which stage, layer and operator is at fault, and why it probably is."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilepack.commands.bisect import Bisection, Culprit
from mobilepack.commands.probing import Call, GraphProbe, ProgramProbe
from mobilepack.commands.tokenizing import tokenizer_fault
from mobilepack.commands.verify import Ladder, VerifyResult
from mobilepack.contract.base import write_atomically
from mobilepack.contract.explanation import Explanation, Stage
from mobilepack.contract.package import Package
from mobilepack.contract.run_plan import Teacher
from mobilepack.contract.run_result import Row, RunResult
from mobilepack.errors import MobilepackError
from mobilepack.metrics.compare import as_arrays
from mobilepack.models.causes import Cause, find_cause
from mobilepack.models.graph import parameter_names
from mobilepack.models.layers import node_groups, operator_name, parameter_of
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.exported import source_model

if TYPE_CHECKING:
    from torch.fx import Node

EXPLANATION = "explanation.json"
_SUSPICIOUS = 0.02  # of a logit's standard deviation, where no limit says more


def explain(ladder: Ladder, verified: VerifyResult) -> VerifyResult:
    """Find out why a rung broke, or that none did, and write `explanation.json` beside the parity.

    Args:
        ladder: Of the package, after it was climbed.
        verified: What that gave.

    Returns:
        The same with the explanation.
    """
    explanation = _Explainer(ladder, verified).run()
    write_atomically(verified.folder / EXPLANATION, explanation.to_json())
    return replace(verified, explanation=explanation)


class _Explainer:
    def __init__(self, ladder: Ladder, verified: VerifyResult) -> None:
        self._ladder, self._parity = ladder, verified.parity

    def run(self) -> Explanation:
        plan = self._ladder.package.manifest.plan
        try:
            with source_model(plan) as model:
                return self._with_model(model)
        except MobilepackError as err:
            return self._not_run(f"{err.why}; {err.next}")

    def _with_model(self, model: LoadedModel) -> Explanation:
        fault = tokenizer_fault(self._ladder.package.root, model.checkpoint.folder)
        if fault is not None:
            return self._of_cause("tokenizer", fault)
        return self._of_rung(model)

    def _of_rung(self, model: LoadedModel) -> Explanation:
        culprit = self._parity.culprit
        backend = self._ladder.package.manifest.plan.backend
        if culprit == "eager quantised":
            from mobilepack.commands.explain_eager import quantisation_loss

            # of QNN the build's own arithmetic is that rung, faults of its weights and tables too
            inside = self._inside(model) if backend == "qnn" else None
            if inside is not None and inside.outcome == "found":
                return inside
            return quantisation_loss(self._ladder, model, self._blank())
        if culprit == "exported":
            return self._blank().model_copy(
                update={
                    "outcome": "found",
                    "stage": "export",
                    "text": "the exported graph does not compute what the flight recorder holds;"
                    " everything below inherits that",
                    "remedy": "build the package again: the recorder may be of other weights",
                }
            )
        if culprit in ("program on device", "program on emulated arm64"):
            return self._of_device()
        plan = self._ladder.package.manifest.plan
        if backend not in ("xnnpack", "coreml", "qnn"):
            return self._not_run(f"nothing reads what happens inside a program for {backend}")
        if backend in ("xnnpack", "qnn") and plan.lowering != "fast":
            return self._not_run("ExecuTorch's own lowering keeps no record of what lies where")
        return self._inside(model)

    def _inside(self, model: LoadedModel) -> Explanation:
        with tempfile.TemporaryDirectory(prefix="mobilepack-explain-") as folder:
            probe = _probe(self._ladder.package, model, Path(folder))
            try:
                return self._bisected(probe)
            finally:
                probe.close()

    def _bisected(self, probe: GraphProbe) -> Explanation:
        calls, wrong, infinite = suspicious_calls(self._ladder)
        bisection = Bisection(probe, calls, wrong, infinite)
        index = bisection.first_layer()
        if self._parity.passed:
            return self._passed(bisection, index)
        # where verify failed though no layer stands out, every layer is looked at, one by one
        groups = node_groups(probe.exported)
        # a small fault shows in the layer after it: the one before is held against its own inputs
        first = 0 if index is None or probe.every else max(0, index - 1)
        near = range(first, len(groups) if index is None else index + 1)
        bisection.closer(near)
        if probe.only_states and index and bisection.all_states_wrong(index):
            return self._between(bisection, groups[index - 1].name, groups[index].name)
        for one in near:
            found = bisection.culprit(one)
            if found is not None:
                return self._found(bisection, found)
        reason = "every operator computes what its own inputs give, and roundings add up"
        if probe.only_states:
            reason = "the keys and values are what their own inputs give"
        if index is not None:
            reason = f"the result of {groups[index].name} diverges, though {reason}"
        return self._blank(bisection).model_copy(update={"reason": reason})

    def _passed(self, bisection: Bisection, index: int | None) -> Explanation:
        """Claim nothing of a program that keeps every tolerance; say what stands out."""
        blank = self._blank(bisection)
        if index is None:
            return blank
        name = node_groups(bisection.probe.exported)[index].name
        reason = (
            f"the result of {name} is beyond its own limit, and every check passes all the same"
        )
        return blank.model_copy(update={"reason": reason})

    def _between(self, bisection: Bisection, before: str, after: str) -> Explanation:
        """Name what lies between the keys and values of two layers."""
        what = "logits" if after == "head" else "keys and values"
        differences = _told(bisection.probe.differences())
        known = "; ".join(differences) or "it was not made of these graphs and weights"
        return self._blank(bisection).model_copy(
            update={
                "outcome": "found",
                "stage": "lowering",
                "layer": before,
                "operator": "attention to feed-forward",
                "call": str(bisection.calls[bisection.wrong]),
                "error": min(bisection.growth[after].error, 1e300),
                "cause": "between-states",
                "differences": differences,
                "text": f"the keys and values of {before} are right and the {what} of {after} are"
                " wrong, so what lies between them is: the attention, its output map, the"
                " feed-forward, or a norm; its program is another one than this version of"
                f" mobilepack makes ({known}), so nothing else of it can be read",
                "remedy": "build the package again from its checkpoint with this version",
            }
        )

    def _found(self, bisection: Bisection, found: Culprit) -> Explanation:
        names = parameter_names(bisection.probe.exported)
        built = bisection.probe.differences()
        differences = _told(built)
        here = [text for text, node in built if node in found.group.nodes]
        between = tuple(dict.fromkeys(operator_name(node) for node in found.unread))
        known = find_cause(found.evidence)
        cause = known or _unknown(here, between)
        node = found.node if known or not found.unread else found.unread[0]
        return self._blank(bisection).model_copy(
            update={
                "outcome": "found",
                "stage": "lowering",
                "layer": found.group.name,
                "operator": operator_name(node),
                "parameter": parameter_of(node, names),
                "call": str(bisection.calls[found.call]),
                "error": min(found.error, 1e300),
                "cause": cause.name,
                "text": cause.text,
                "remedy": cause.remedy,
                "explained": cause.explained,
                "differences": differences,
            }
        )

    def _of_device(self) -> Explanation:
        device = self._parity.device
        return self._blank().model_copy(
            update={
                "outcome": "found",
                "stage": "device",
                "cause": "other-kernels",
                "text": f"the same file computes something else on {device} than on this machine,"
                " whose program passed",
                "remedy": "compare ExecuTorch's version there (`mobilepack devices`), and run a"
                " virtual phone: -d NAME; if that passes, the phone's kernels are at fault",
            }
        )

    def _of_cause(self, stage: Stage, cause: Cause) -> Explanation:
        return self._blank().model_copy(
            update={
                "outcome": "found",
                "stage": stage,
                "cause": cause.name,
                "text": cause.text,
                "remedy": cause.remedy,
                "explained": cause.explained,
            }
        )

    def _blank(self, bisection: Bisection | None = None) -> Explanation:
        growth = [] if bisection is None else list(bisection.growth.values())
        if bisection is not None:
            order = [group.name for group in node_groups(bisection.probe.exported)]
            growth.sort(key=lambda one: order.index(one.layer))
        return Explanation(
            plan_id=self._parity.plan_id,
            device=self._parity.device,
            outcome="no divergence",
            growth=tuple(g.model_copy(update={"error": min(g.error, 1e300)}) for g in growth),
            probes=0 if bisection is None else bisection.probe.probes,
        )

    def _not_run(self, reason: str) -> Explanation:
        return self._blank().model_copy(update={"outcome": "not run", "reason": reason})


def _probe(package: Package, model: LoadedModel, folder: Path) -> GraphProbe:
    """Return what reads values of a package's program."""
    backend = package.manifest.plan.backend
    if backend == "coreml":
        from mobilepack.commands.probing_static import MilProbe

        return MilProbe(package, model)
    if backend == "qnn":
        from mobilepack.commands.probing_qnn import QnnProbe

        return QnnProbe(package, model, folder)
    return ProgramProbe(package, model, folder)


def _told(built: Sequence[tuple[str, Node | None]]) -> tuple[str, ...]:
    """Return each kind of difference once, with how often and where it is first."""
    places: dict[str, list[str]] = {}
    for text, node in built:
        places.setdefault(text, []).append("" if node is None else f"near {node}")
    return tuple(
        f"{text} ({', '.join(filter(None, (at[0], f'{len(at)} times' if len(at) > 1 else '')))})"
        for text, at in places.items()
    )


def _unknown(differences: Sequence[str], between: Sequence[str]) -> Cause:
    if differences:
        text = "the program is built otherwise than this version of mobilepack builds it: "
        text += "; ".join(dict.fromkeys(differences))
        return Cause("other-program", text, "build the package again with this version")
    text = "no known fault explains these numbers"
    if between:
        text += f"; {', '.join(between)} could not be read and may be at fault as well"
    remedy = "report this with explanation.json; `--lowering reference` takes ExecuTorch's own way"
    return Cause("unknown", text, remedy)


_EVIDENCE_TOKENS = 64
"""Tokens after the first wrong call that an operator is watched for: one alone fits any cause."""


def suspicious_calls(ladder: Ladder) -> tuple[list[Call], int, bool]:
    """Return the run's calls, which is the first wrong one, and whether it gave no numbers.

    Of a run without a wrong call it is the one that is farthest off.
    """
    result = ladder.host_result
    teachers = [item for item in ladder.plan.items if isinstance(item, Teacher)]
    calls = [
        Call(number, item.name, item.token_ids, end - count, end)
        for number, item in enumerate(teachers)
        for count, end in zip(item.calls, np.cumsum(item.calls).tolist(), strict=True)
    ]
    row = _wrong_row(ladder, result)
    last = next(n for n, c in enumerate(calls) if (c.name, c.end - 1) == (row.item, row.position))
    until, tokens = last + 1, 0
    while until < len(calls) and tokens < _EVIDENCE_TOKENS:
        tokens += calls[until].end - calls[until].start
        until += 1
    return calls[:until], last, row.non_finite > 0


def _wrong_row(ladder: Ladder, result: RunResult) -> Row:
    judge = ladder.judge
    rows = judge.reference.rows[judge.top]
    spread = float(rows.sampled.std())
    limit = judge.limits(1).get("rms_over_std")
    allowed = limit.value if limit is not None else _SUSPICIOUS
    worst: tuple[float, Row] | None = None
    for check in ladder.checks.teachers:
        start = ladder.reference.offset(check.sequence)
        for row in (row for row in result.rows if row.item == check.name):
            if row.non_finite:
                return row
            gap = as_arrays([row]).sampled - rows.sampled[start + row.position]
            error = float(np.sqrt(np.square(gap).mean())) / spread
            if error > allowed:
                return row
            if worst is None or error > worst[0]:
                worst = (error, row)
    assert worst is not None  # noqa: S101 - every plan has teacher items
    return worst[1]
