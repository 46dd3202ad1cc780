"""The training script, with a network small enough for a test."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mobilepack.models.zoo.corpus import Message
from mobilepack.models.zoo.train.__main__ import main
from mobilepack.models.zoo.train.data import ASSISTANT, BOS, END, USER, encode, train_tokenizer
from mobilepack.models.zoo.train.loop import Phase, Recipe, train
from mobilepack.models.zoo.train.network import Shape
from mobilepack.models.zoo.train.optimiser import orthogonalise

TINY = Recipe(
    shape=Shape(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
    ),
    phases=(Phase(2, 1, 32), Phase(1, 1, 64)),
    tokenizer_documents=50,
)


def _silent(line: str) -> None:
    del line


def test_a_resumed_run_ends_in_the_same_weights_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = train(TINY, tmp_path / "whole", report=_silent)
    half = train(TINY, tmp_path / "half", stop_after_steps=1, report=_silent)
    assert half.steps == 1
    resumed = train(TINY, tmp_path / "half", report=_silent)
    assert (whole.steps, resumed.steps) == (3, 3)
    expected = whole.network.state_dict()
    for name, value in resumed.network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_a_finished_run_started_again_changes_nothing(tmp_path: Path) -> None:
    first = train(TINY, tmp_path, report=_silent).network.state_dict()
    again = train(TINY, tmp_path, report=_silent)
    assert again.steps == 3
    assert all(torch.equal(first[n], v) for n, v in again.network.state_dict().items())


def test_a_run_out_of_time_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    first = train(TINY, tmp_path, stop_after_s=0.0, report=_silent)
    assert first.steps == 1
    assert train(TINY, tmp_path, report=_silent).steps == 3


def test_the_script_writes_a_hugging_face_folder(tmp_path: Path) -> None:
    out = tmp_path / "model"
    main(["--out", str(out)], TINY)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    weights = load_file(out / "model.safetensors")
    assert weights["model.embed_tokens.weight"].shape == (300, 32)
    assert "lm_head.weight" not in weights
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= {
        path.name for path in out.iterdir()
    }


def test_without_resume_the_script_starts_afresh(tmp_path: Path) -> None:
    out, work = tmp_path / "model", tmp_path / "work"
    main(["--out", str(out), "--work", str(work)], TINY)
    (work / "left over").touch()
    main(["--out", str(out), "--work", str(work), "--resume"], TINY)
    assert (work / "left over").exists()
    main(["--out", str(out), "--work", str(work)], TINY)
    assert not (work / "left over").exists()


def test_the_rate_warms_up_holds_and_decays_to_almost_nothing() -> None:
    recipe = Recipe()
    shares = [recipe.rate_share(step) for step in range(recipe.steps)]
    assert 0.0 < shares[0] < 0.05
    assert shares[100] == shares[500] == 1.0
    assert 0.0 < shares[-1] < 0.01
    assert max(shares) <= 1.0


def test_the_rate_stays_at_its_last_knot() -> None:
    assert Recipe(rate_knots=((-1, 0.0), (1, 0.5))).rate_share(99) == 0.5


def test_a_chat_is_encoded_as_its_template_says_and_user_words_count_less() -> None:
    tokenizer = train_tokenizer(0, 50, 300)
    ids, weights = encode(tokenizer, (Message("user", "Hi"), Message("assistant", "Yes")))
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert text == "<|bos|><|user|>Hi<|end|><|assistant|>Yes<|end|>"
    assert ids[0] == BOS
    assert ids[-1] == END
    assert weights[ids.index(USER)] == weights[ids.index(ASSISTANT)] == 0.0
    assert weights[ids.index(USER) + 1] < weights[-1] == 1.0


@pytest.mark.parametrize("shape", [(16, 48), (48, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    result = orthogonalise(torch.randn(shape, generator=generator))
    values = torch.linalg.svdvals(result)
    # The quintic's fixed band, 0.7 to 1.2 (Jordan 2024), plus room for bf16.
    assert values.min() > 0.5
    assert values.max() < 1.4
