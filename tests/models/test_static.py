"""The static form computes what the dynamic form does, for every family of plain blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mobilepack.contract.manifest import Method, StaticForm
from mobilepack.models.decoder import with_weights
from mobilepack.models.families.registry import family_of
from mobilepack.models.operators_static import Heads
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.static import (
    StaticDecoder,
    StaticShape,
    input_names,
    static_decoder,
    windows_of,
)
from mobilepack.models.static_session import StaticSession, static_methods
from tests.matrix.cases import CASES, Case
from tests.models.networks import (
    RandomWeights,
    feed,
    random_ids,
    relative_rms,
    same_top1,
    tiny_spec,
)

CONTEXT, PREFILL = 40, 8
CALLS = (8, 1, 1, 5, 7, 1, 1)
MAX_RMS_OVER_STD = 1e-5  # as between the dynamic form and transformers: sums in another order
MASK = -4e4


class Eager:
    """Prefill and decode in eager torch, behind a session."""

    def __init__(self, spec: DecoderSpec, weights: RandomWeights, **options: Any) -> None:
        self.modules: dict[str, StaticDecoder] = {}
        shapes, outputs = {}, {}
        for name, tokens in (("prefill", PREFILL), ("decode", 1)):
            shape = StaticShape(tokens, CONTEXT, CONTEXT - 1, **options)
            module = static_decoder(spec, shape, weights)
            example = module.example(MASK)
            self.modules[name] = module
            shapes[name] = [_kind(t) for t in example]
            with torch.no_grad():
                outputs[name] = [_kind(t) for t in module(*example)]
        self.form = StaticForm(
            past=CONTEXT - 1, prefill_tokens=PREFILL, mask_value=MASK, windows=windows_of(spec)
        )
        self.methods = static_methods(input_names(spec), shapes, outputs)

    def session(self) -> StaticSession:
        return StaticSession(self.form, self.methods, self.run)

    @torch.no_grad()
    def run(self, name: str, inputs: Sequence[Any]) -> list[Any]:
        outputs = self.modules[name](*(torch.from_numpy(array) for array in inputs))
        return [t.numpy() for t in outputs]


def _kind(t: torch.Tensor) -> tuple[tuple[int, ...], str]:
    return tuple(t.shape), str(t.dtype).removeprefix("torch.")


def statically(
    session: StaticSession, ids: Sequence[int], calls: Sequence[int], start: int = 0
) -> torch.Tensor:
    rows, at = [], 0
    for count in calls:
        logits = session(np.array(ids[at : at + count]), start + at)
        rows.append(torch.from_numpy(logits.copy()))
        at += count
    return torch.stack(rows)


def _spec(case: Case) -> DecoderSpec:
    config = {"model_type": case.model_type, **case.keys}
    return family_of(config).read(config)


# llava's own config nests what its case gives flat; its decoder is llama's
PLAIN = [case for case in CASES if case.name != "llava" and _spec(case).is_plain]


def test_most_families_have_the_static_form() -> None:
    assert len(PLAIN) >= 44


@pytest.mark.slow
@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.name)
def test_a_family_computes_what_its_dynamic_form_does(case: Case) -> None:
    spec = _spec(case)
    weights = RandomWeights(spec)
    dynamic = with_weights(spec, CONTEXT, weights)
    eager = Eager(spec, weights)
    session = eager.session()
    for seed in (0, 1):  # a second prompt over what the first left in the cache
        ids = random_ids(spec, sum(CALLS), seed)
        ours, theirs = statically(session, ids, CALLS), feed(dynamic, ids, CALLS)
        assert relative_rms(ours, theirs) <= MAX_RMS_OVER_STD
        assert same_top1(ours, theirs)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("linear", ["linear", "convolution"])
@pytest.mark.parametrize("heads", ["together", "split"])
def test_layouts_are_the_same_function(family: str, linear: Any, heads: Heads) -> None:
    spec = tiny_spec(family)
    weights = RandomWeights(spec)
    session = Eager(spec, weights, linear=linear, heads=heads).session()
    ids = random_ids(spec, sum(CALLS))
    theirs = feed(with_weights(spec, CONTEXT, weights), ids, CALLS)
    assert relative_rms(statically(session, ids, CALLS), theirs) <= MAX_RMS_OVER_STD


def test_the_cache_can_be_filled_to_its_last_position_and_rewound() -> None:
    spec = tiny_spec("mistral")
    weights = RandomWeights(spec)
    dynamic, session = with_weights(spec, CONTEXT, weights), Eager(spec, weights).session()
    ids = random_ids(spec, CONTEXT)
    for calls in ((8,) * 5, (8, 8, 8, 8, 7, 1), (1,) * CONTEXT):
        ours = statically(session, ids, calls)
        assert relative_rms(ours, feed(dynamic, ids, calls)) <= MAX_RMS_OVER_STD
    ours = statically(session, ids[:6], (5, 1), start=3)
    assert relative_rms(ours, feed(dynamic, ids[:6], (5, 1), start=3)) <= MAX_RMS_OVER_STD


@pytest.mark.parametrize(("count", "position"), [(PREFILL + 1, 0), (1, CONTEXT)])
def test_calls_that_do_not_fit_are_refused(count: int, position: int) -> None:
    spec = tiny_spec()
    session = Eager(spec, RandomWeights(spec)).session()
    with pytest.raises(ValueError, match="do not fit"):
        session(np.zeros(count, np.int64), position)


def test_both_methods_share_their_weights() -> None:
    spec = tiny_spec()
    eager = Eager(spec, RandomWeights(spec))
    one, other = (dict(module.named_parameters()) for module in eager.modules.values())
    assert {n: p.data_ptr() for n, p in one.items()} == {n: p.data_ptr() for n, p in other.items()}


def test_methods_describe_their_tensors() -> None:
    spec = tiny_spec("mistral")
    methods: dict[str, Method] = {m.name: m for m in Eager(spec, RandomWeights(spec)).methods}
    assert [t.name for t in methods["decode"].inputs] == [
        "tokens", "positions", "mask_5", "k_0", "v_0", "k_1", "v_1",
    ]  # fmt: skip
    assert methods["prefill"].inputs[2].shape == (1, 1, PREFILL, CONTEXT - 1 + PREFILL)
    assert methods["prefill"].outputs[0].shape == (1, spec.vocab_size)
    assert methods["prefill"].outputs[1].shape == (1, 2, 16, PREFILL)
