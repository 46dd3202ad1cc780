"""What is written down computes what the static form does, and has the same names at any length."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mobilepack.backends.qnn.constants import Constants
from mobilepack.backends.qnn.evaluate import Case, evaluate
from mobilepack.backends.qnn.sequences import Tracer
from mobilepack.models.spec import DecoderSpec, parameter_shapes
from mobilepack.models.static import StaticShape, cache_names, input_names, static_decoder
from mobilepack.models.tables import make_tables
from tests.models.networks import RandomWeights, relative_rms, tiny_spec
from tests.models.test_static import MAX_RMS_OVER_STD, PLAIN, _spec

CONTEXT, TOKENS = 24, 5


def constants_of(folder: Path, spec: DecoderSpec, weights: RandomWeights) -> Constants:
    owned = {name: weights[name].contiguous() for name in parameter_shapes(spec)}
    if weights.tied:
        owned.pop("head.weight", None)
    save_file(owned, folder / "weights.safetensors")
    shared = {"head.weight": "embed.weight"} if weights.tied else {}
    return Constants(folder / "weights.safetensors", shared, make_tables(spec, CONTEXT))


def check(spec: DecoderSpec, folder: Path) -> None:
    weights = RandomWeights(spec)
    constants = constants_of(folder, spec, weights)
    graphs = {n: Tracer(spec, CONTEXT, "together", True).graph(n, CONTEXT - 1) for n in (TOKENS, 1)}
    for count, graph in graphs.items():
        module = static_decoder(spec, StaticShape(count, CONTEXT, CONTEXT - 1), weights)
        inputs = [
            torch.randn_like(t) if t.dtype == torch.float32 and t.dim() == 4 and n[0] in "kv" else t
            for n, t in zip(input_names(spec), module.example(-100.0), strict=True)
        ]
        with torch.no_grad():
            wanted = module(*inputs)
        case = Case(graph, dict(zip(input_names(spec), inputs, strict=True)))
        (found,) = evaluate([case], constants.operands, lambda _, value, __: value, lambda _: None)
        for one, other in zip(found, wanted, strict=True):
            assert one.shape == other.shape
            assert relative_rms(one, other) <= MAX_RMS_OVER_STD
    short, long = ({s.output.name: s.kind for s in graphs[n].steps} for n in (1, TOKENS))
    assert all(long.get(name, kind) == kind for name, kind in short.items())
    assert [t.name for t in graphs[1].outputs] == ["logits_out", *(
        f"{name}_out" for name in cache_names(spec)
    )]  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_graph_computes_what_it_was_traced_from(family: str, tmp_path: Path) -> None:
    check(tiny_spec(family), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_every_family_can_be_traced(case: object, tmp_path: Path) -> None:
    check(_spec(case), tmp_path)  # type: ignore[arg-type]


def test_a_text_at_once_is_what_calls_over_a_cache_give(tmp_path: Path) -> None:
    spec = tiny_spec("mistral")  # a window of 5
    weights = RandomWeights(spec)
    constants = constants_of(tmp_path, spec, weights)
    ids = torch.randint(spec.vocab_size, (11,), generator=torch.Generator().manual_seed(0))
    case = Tracer(spec, CONTEXT, "together", False).text(ids.tolist(), -4e4)
    (found,) = evaluate([case], constants.operands, lambda _, v, __: v, lambda _: None)
    shape = StaticShape(len(ids), CONTEXT, CONTEXT - 1)
    module = static_decoder(spec, shape, weights)
    inputs = list(module.example(-4e4))
    inputs[0] = ids.int()[None]
    inputs[2][..., CONTEXT - 1 :] = case.inputs[input_names(spec)[2]]
    with torch.no_grad():
        wanted = module(*inputs)
    assert found[0].shape == (len(ids), spec.vocab_size)
    assert relative_rms(found[0][-1:], wanted[0]) <= MAX_RMS_OVER_STD
