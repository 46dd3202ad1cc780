"""A node of the exported graph and the tensor of the trace that it is aligned with are equal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mobilepack.backends.qnn.evaluate import Case as Call
from mobilepack.backends.qnn.evaluate import evaluate
from mobilepack.backends.qnn.graph import Step
from mobilepack.backends.qnn.landmarks import Landmarks
from mobilepack.backends.qnn.sequences import Tracer
from mobilepack.commands.probing_qnn import aligned, by_token
from mobilepack.models.graph import operators
from mobilepack.models.layers import operator_name
from mobilepack.models.observed import observed
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.streaming import Lane
from mobilepack.models.tables import make_tables
from mobilepack.pipeline.export import export_decoder
from tests.backends.qnn.test_trace import CONTEXT, constants_of
from tests.models.networks import RandomWeights, relative_rms, tiny_spec
from tests.models.test_static import MAX_RMS_OVER_STD, PLAIN, Case, _spec

IDS = (5, 17, 3, 101, 42)


def check(spec: DecoderSpec, folder: Path) -> frozenset[str]:
    """Compare all aligned values; returns the operators that are not aligned."""
    weights = RandomWeights(spec)
    constants = constants_of(folder, spec, weights)
    tracer, marks = Tracer(spec, CONTEXT, "together", quantised=True), Landmarks()
    graph = tracer.graph(len(IDS), 0, every=True, watcher=marks)
    values: dict[str, torch.Tensor] = {}

    def keep(step: Step, value: torch.Tensor, _: int) -> torch.Tensor:
        values[step.output.name] = value
        return value

    case = tracer.text(IDS, -100.0)
    evaluate([Call(graph, case.inputs)], constants.operands, keep, lambda _: None)
    exported = export_decoder(spec, CONTEXT, len(IDS))
    names = aligned(exported, marks.found(graph))
    seen = observed(exported, weights, make_tables(spec, CONTEXT), [Lane(IDS)], names)
    for node, name in names.items():
        (wanted,), found = seen[node], by_token(values[name], name, len(IDS), len(IDS))
        wanted = wanted.reshape(len(IDS), -1)  # of the evaluator, every token's
        assert relative_rms(found[0], wanted) <= MAX_RMS_OVER_STD, (node, name)
    return frozenset(operator_name(n) for n in operators(exported) if n not in names)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_every_operator_has_its_tensor(family: str, tmp_path: Path) -> None:
    assert check(tiny_spec(family), tmp_path) == frozenset()


@pytest.mark.slow
@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_operators_of_every_plain_family_have_theirs(case: Case, tmp_path: Path) -> None:
    missed = check(_spec(case), tmp_path)
    assert not missed & {"linear", "rms_norm", "layer_norm", "rope", "attention"}, missed
