"""Mixtures of experts, recurrent states and latent attention, run eagerly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mobilepack.errors import UsageError
from mobilepack.models.decoder import with_weights
from mobilepack.models.families.registry import family_of
from mobilepack.models.moe import ExpertLane, run_experts
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.streaming import Lane, Quantisation, run_lanes
from mobilepack.models.tables import make_tables
from mobilepack.models.weights import open_model
from mobilepack.pipeline.export import export_decoder
from tests.models.checkpoints import edit_json
from tests.models.hybrids import HYBRIDS, write_checkpoint
from tests.models.networks import RandomWeights, feed, random_ids, relative_rms

pytestmark = pytest.mark.slow

OURS = torch.ops.mobilepack
MAX_RMS_OVER_STD = 1e-5


def spec_of(family: str, **overrides: Any) -> DecoderSpec:
    config = {**HYBRIDS[family].keys, "model_type": family, **overrides}
    return family_of(config).read(config)


def weights_of(spec: DecoderSpec) -> RandomWeights:
    weights = RandomWeights(spec)
    for name, values in weights.items():
        if name.endswith("a_log.weight"):
            values.uniform_(0.0, 2.0)
        if name.endswith("recurrent_param.weight"):
            values.uniform_(-5.0, -1.0)
    return weights


@pytest.mark.parametrize("family", HYBRIDS)
def test_a_prompt_in_any_calls_is_the_prompt_token_by_token(family: str) -> None:
    spec = spec_of(family)
    decoder = with_weights(spec, 24, weights_of(spec))
    ids, other = random_ids(spec, 24), random_ids(spec, 20, seed=1)
    steps = feed(decoder, ids, (1,) * 24)
    for calls in ((24,), (7, 1, 8, 3, 5), (16, *(1,) * 8)):
        feed(decoder, other, (20,))  # leaves a state behind that must not count
        ends = [sum(calls[: i + 1]) - 1 for i in range(len(calls))]
        assert relative_rms(feed(decoder, ids, calls), steps[ends]) <= MAX_RMS_OVER_STD


@pytest.mark.parametrize("family", HYBRIDS)
def test_the_evaluator_computes_what_the_decoder_does(family: str) -> None:
    spec = spec_of(family)
    weights = weights_of(spec)
    exported, ids = export_decoder(spec, 24, 8), random_ids(spec, 24)
    quantised = Quantisation(32, "4w")
    lanes = [Lane(ids), Lane(ids[:9]), Lane(ids, quantised), Lane(ids[:9], quantised)]
    whole, start, rounded, rounded_start = run_lanes(
        exported, weights, make_tables(spec, 24), lanes
    )
    expected = feed(with_weights(spec, 24, weights), ids, (1,) * 24)
    assert relative_rms(whole, expected) <= MAX_RMS_OVER_STD
    assert relative_rms(start, expected[:9]) <= MAX_RMS_OVER_STD
    assert 1e-3 < relative_rms(rounded, whole) < 1.0
    assert relative_rms(rounded_start, rounded[:9]) < 0.1


def test_experts_are_feed_forwards_on_the_tokens_that_chose_them() -> None:
    torch.manual_seed(0)
    x, chosen = torch.randn(1, 5, 8), torch.tensor([[[0, 2], [2, 1], [1, 0], [2, 0], [0, 1]]])
    gate, up, down = torch.randn(3 * 4, 8), torch.randn(3 * 4, 8), torch.randn(3 * 8, 4)
    found = OURS.experts(x, chosen, gate, up, down, "silu")
    assert found.shape == (1, 5, 2, 8)
    for token in range(5):
        for slot in range(2):
            e = int(chosen[0, token, slot])
            h = torch.nn.functional.silu(gate[4 * e : 4 * e + 4] @ x[0, token])
            h = down[8 * e : 8 * e + 8] @ (h * (up[4 * e : 4 * e + 4] @ x[0, token]))
            torch.testing.assert_close(found[0, token, slot], h)


def test_experts_that_nobody_chose_are_not_read() -> None:
    torch.manual_seed(0)
    matrices = {"g": torch.randn(16, 8), "u": torch.randn(16, 8), "d": torch.randn(32, 4)}
    read: list[int] = []

    class Rows:
        def shape(self, name: str) -> tuple[int, ...]:
            return tuple(matrices[name].shape)

        def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
            read.append(start // (stop - start))
            return matrices[name][start:stop]

    lane = ExpertLane(torch.randn(1, 3, 8), torch.tensor([[[1], [3], [1]]]), 0)
    (found,) = run_experts(Rows(), ("g", "u", "d"), [lane], "relu")
    assert set(read) == {1, 3}
    expected = OURS.experts(lane.x, lane.chosen, *matrices.values(), "relu")
    torch.testing.assert_close(found, expected)


def test_weights_of_experts_by_each_rule() -> None:
    logits = torch.tensor([[[1.0, 3.0, 2.0, -1.0]]])
    chosen = OURS.top_experts(logits, 2)
    assert chosen.tolist() == [[[1, 2]]]
    whole = logits.softmax(-1)[0, 0, [1, 2]]
    torch.testing.assert_close(OURS.expert_weights(logits, chosen, "softmax", 0.0)[0, 0], whole)
    found = OURS.expert_weights(logits, chosen, "softmax_chosen", 0.0)[0, 0]
    torch.testing.assert_close(found, whole / whole.sum())


def sparsemixer(logits: torch.Tensor, jitter: float) -> tuple[torch.Tensor, torch.Tensor]:
    from transformers.models.phimoe.modeling_phimoe import sparsemixer as theirs

    factors, experts = theirs(logits, jitter_eps=jitter, training=False)
    return factors, experts


@pytest.mark.parametrize("jitter", [0.01, 0.2, 2.0])
def test_sparsemixer_is_transformers_own(jitter: float) -> None:
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    factors, experts = sparsemixer(logits, jitter)
    chosen = OURS.top_experts(logits, 2)
    assert torch.equal(chosen, experts)
    found = OURS.expert_weights(logits, chosen, "sparsemixer", jitter)
    torch.testing.assert_close(found, factors)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("qwen3_moe", {"num_experts_per_tok": 9}, "num_experts_per_tok: is 9, but num_experts is 8"),
    ("qwen3_moe", {"mlp_only_layers": [7]}, "mlp_only_layers: is [7]"),
    (
        "qwen2_moe",
        {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 3},
        "not in use",
    ),
    ("olmoe", {"num_expert": 4}, "did you mean"),
    ("mixtral", {"hidden_act": "siluu"}, "did you mean 'silu'"),
    ("phimoe", {"num_experts_per_tok": 3}, "only 2 can be built"),
    ("granitemoe", {"shared_intermediate_size": 64}, "shared_intermediate_size"),
    ("lfm2", {"layer_types": ["conv", "attention"] * 2}, "layer_types: must be 4 times"),
    ("lfm2", {"full_attn_idxs": 3}, "full_attn_idxs: is 3"),
    ("lfm2", {"conv_L_cache": 1}, "conv_L_cache: is 1"),
    ("mamba2", {"num_heads": 7}, "num_heads: times head_dim is 112"),
    ("mamba2", {"n_groups": 3}, "n_groups: is 3"),
    ("mamba2", {"time_step_limit": [0.1, 0.01]}, "time_step_limit"),
    ("mamba2", {"norm_before_gate": True}, "norm_before_gate"),
    ("recurrent_gemma", {"block_types": ["recurrent", "mamba"]}, "block_types"),
    ("recurrent_gemma", {"lru_width": 60}, "lru_width: is 60"),
    ("minicpm3", {"num_key_value_heads": 2}, "num_key_value_heads"),
    ("minicpm3", {"qk_rope_head_dim": 7}, "qk_rope_head_dim: is 7"),
]


@pytest.mark.parametrize(("family", "keys", "part"), WRONG)
def test_a_config_that_cannot_work_is_an_error(
    refused: Callable[..., str], family: str, keys: dict[str, Any], part: str
) -> None:
    assert part in refused(family, **keys)


@pytest.fixture
def refused() -> Callable[..., str]:
    def read(family: str, **keys: Any) -> str:
        with pytest.raises(UsageError) as failure:
            spec_of(family, **keys)
        assert failure.value.code == "invalid-config"
        return failure.value.why

    return read


def test_a_lost_expert_and_a_tensor_of_another_shape_are_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "mixtral")
    tensors = load_file(tmp_path / "model.safetensors")
    lost = "model.layers.1.block_sparse_moe.experts.2.w3.weight"
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError) as failure:
        open_model(tmp_path)
    assert failure.value.code == "weights-mismatch"
    assert f"{lost} is missing" in failure.value.why

    edit_json(tmp_path / "config.json", num_local_experts=3)
    with pytest.raises(UsageError) as failure:
        open_model(tmp_path)
    assert "gate.weight is [4, 64], but config.json makes it [3, 64]" in failure.value.why
    assert "experts.3.w1.weight is not part of a mixtral model" in failure.value.why


def test_experts_in_one_tensor_must_be_as_many_as_the_config_says(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "granitemoe")
    edit_json(tmp_path / "config.json", num_local_experts=5)
    with pytest.raises(UsageError) as failure:
        open_model(tmp_path)
    found = "input_linear.weight is [6, 192, 64], but config.json makes it [5, 192, 64]"
    assert found in failure.value.why
