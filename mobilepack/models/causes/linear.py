"""What goes wrong with a linear map: its weight's layout, its scales, its heads, its bias."""

from __future__ import annotations

import itertools

import torch

from mobilepack.models.causes.evidence import Cause, Evidence, Hypotheses, Hypothesis
from mobilepack.models.graph import arguments

_WEIGHTS = "look at how the weight is read and packed: families/*.py (names, `transposed`, fused"
_WEIGHTS += " heads), backends/xnnpack/emit.py and backends/qnn/assemble.py"
_SCALES = "look at where the scales are packed (backends/xnnpack/emit.py `_scales`,"
_SCALES += " backends/qnn/encodings.py) and at --group-size"
_MOST_HEADS = 64


def linear(evidence: Evidence) -> Hypotheses:
    """Yield what each known fault of a linear map would have computed."""
    weight = evidence.weight
    if weight is None:
        return
    x, expected = evidence.mapped(evidence.input(0)), evidence.expected
    offset = expected - x @ weight.T
    if weight.shape[0] == weight.shape[1]:
        cause = Cause("transposed-weight", "the weight is transposed", _WEIGHTS)
        yield Hypothesis(cause, x @ weight + offset)
    yield from _bias(evidence, offset)
    yield from _heads(evidence, x, weight, offset)
    yield from _scale(evidence, x, weight)


def _bias(evidence: Evidence, offset: torch.Tensor) -> Hypotheses:
    bias = (*arguments(evidence.node), None)[2]
    if bias is not None:
        text = "the bias is not added"
        yield Hypothesis(Cause("missing-bias", text, _WEIGHTS), evidence.expected - offset)


def _heads(
    evidence: Evidence, x: torch.Tensor, weight: torch.Tensor, offset: torch.Tensor
) -> Hypotheses:
    """Two heads of the results, or of the inputs, have changed places."""
    size = evidence.head_dim
    for axis, what in ((0, "its results"), (1, "its inputs")):
        count = weight.shape[axis] // size if size else 0
        if not 2 <= count <= _MOST_HEADS or weight.shape[axis] % size:
            continue
        for one, other in _pairs(evidence, count, axis):
            order = list(range(count))
            order[one], order[other] = other, one
            blocks = weight.unflatten(axis, (count, size))
            moved = blocks.index_select(axis, torch.tensor(order)).flatten(axis, axis + 1)
            text = f"heads {one} and {other} of {what} have changed places"
            yield Hypothesis(Cause("swapped-heads", text, _WEIGHTS), x @ moved.T + offset)


def _pairs(evidence: Evidence, count: int, axis: int) -> list[tuple[int, int]]:
    """Return pairs of heads; of results only those that differ at all."""
    if axis == 1:
        return list(itertools.combinations(range(count), 2)) if count <= 16 else []
    gap = (evidence.found - evidence.expected).unflatten(-1, (count, -1))
    size = gap.square().mean((0, 2)).sqrt()
    wrong = [int(i) for i in (size > 0.1 * size.max()).nonzero().flatten()]
    return list(itertools.combinations(wrong, 2)) if len(wrong) <= 8 else []


def _scale(evidence: Evidence, x: torch.Tensor, weight: torch.Tensor) -> Hypotheses:
    """A scale is wrong: of everything, of one row, or of one group of one row."""
    expected, inside = evidence.expected, evidence.inside
    gap = (evidence.found - expected) * inside
    plain = (x @ weight.T) * inside
    factor = 1 + float((gap * plain).sum() / plain.square().sum().clamp(min=1e-30))
    text = f"every number is {factor:.4g} times what it should be"
    whole = x @ weight.T
    yield Hypothesis(Cause("wrong-scale", text, _SCALES), expected + (factor - 1) * whole)
    row = int((evidence.found - expected).square().sum(0).argmax())
    part = plain[:, row]
    factor = 1 + float((gap[:, row] * part).sum() / part.square().sum().clamp(min=1e-30))
    predicted = expected.clone()
    predicted[:, row] += (factor - 1) * whole[:, row]
    text = f"the scale of row {row} is {factor:.4g} times what it should be"
    yield Hypothesis(Cause("wrong-row-scale", text, _SCALES), predicted)
    if evidence.group:
        yield _group(evidence, x, weight, row)


def _group(evidence: Evidence, x: torch.Tensor, weight: torch.Tensor, row: int) -> Hypothesis:
    inside = evidence.inside[:, row, None]
    gap = (evidence.found - evidence.expected)[:, row, None] * inside
    # what each group of the row contributes: [tokens, groups]
    shares = (x * weight[row]).unflatten(-1, (-1, evidence.group)).sum(-1)
    parts = shares * inside
    fits = (parts * gap).sum(0) / parts.square().sum(0).clamp(min=1e-30)
    left = (gap - fits * parts).square().sum(0)
    group = int(left.argmin())
    factor = 1 + float(fits[group])
    predicted = evidence.expected.clone()
    predicted[:, row] += fits[group] * shares[:, group]
    columns = f"{group * evidence.group} to {(group + 1) * evidence.group - 1}"
    text = f"the int4 scale of row {row}, group {group} (columns {columns}) is {factor:.4g} times"
    text += " what it should be"
    return Hypothesis(Cause("mis-scaled-group", text, _SCALES), predicted)
