from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mobilepack.errors import BuildError, UsageError
from mobilepack.models.checkpoint import Checkpoint
from mobilepack.models.layer_spec import AttentionSpec, FeedForwardSpec, LayerSpec, NormSpec
from mobilepack.models.spec import DecoderSpec, TensorSource, parameter_shapes
from mobilepack.models.weights import Weights, open_model
from tests.models.checkpoints import edit_json, load_reference
from tests.models.conftest import Made

Change = Callable[[dict[str, torch.Tensor]], None]


def rewrite(folder: Path, change: Change) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def mismatch(folder: Path) -> str:
    with pytest.raises(UsageError) as failure:
        open_model(folder)
    assert failure.value.code == "weights-mismatch"
    assert str(folder) in failure.value.what
    return failure.value.why


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_the_one_that_transformers_loads(
    made: Made, family: str, tied: bool
) -> None:
    folder = made(family, tie_word_embeddings=tied)
    model, reference = open_model(folder), load_reference(folder)
    theirs = reference.state_dict()
    assert model.spec.tied_head is tied
    assert set(model.weights.sources) == set(parameter_shapes(model.spec))
    for name, shape in parameter_shapes(model.spec).items():
        assert model.weights.shape(name) == shape
        assert torch.equal(model.weights.tensor(name), theirs[model.weights.sources[name].key])
    assert model.weights.parameters() == sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"head_dim": 32}),
        ("qwen3", {"attention_bias": True}),
        ("llama", {"num_key_value_heads": None}),
    ],
)
def test_optional_biases_and_head_sizes_are_found(
    made: Made, family: str, options: dict[str, Any]
) -> None:
    folder = made(family, **options)
    model = open_model(folder)
    assert model.weights.parameters() == sum(p.numel() for p in load_reference(folder).parameters())


def test_rows_are_the_same_as_the_slice_of_the_tensor(made: Made) -> None:
    weights = open_model(made(dtype="bfloat16", shards=3)).weights
    whole = weights.tensor("layers.1.down.weight")
    assert torch.equal(weights.rows("layers.1.down.weight", 5, 17), whole[5:17])
    out = torch.empty(2, whole.shape[1])
    assert weights.rows("layers.1.down.weight", 0, 2, out) is out


def test_tied_parameters_share_an_identity(made: Made) -> None:
    tied, untied = open_model(made(tie_word_embeddings=True)), open_model(made())
    assert tied.weights.identity("head.weight") == tied.weights.identity("embed.weight")
    assert untied.weights.identity("head.weight") != untied.weights.identity("embed.weight")
    names = untied.weights.sources
    assert len({untied.weights.identity(name) for name in names}) == len(names)


class TestTying:
    """What the config says against what the file holds, each time as transformers decides."""

    @staticmethod
    def agree(folder: Path) -> DecoderSpec:
        model, theirs = open_model(folder), load_reference(folder).state_dict()
        assert torch.equal(model.weights.tensor("head.weight"), theirs["lm_head.weight"])
        embed = theirs["model.embed_tokens.weight"]
        assert torch.equal(model.weights.tensor("embed.weight"), embed)
        return model.spec

    def test_equal_copies_of_a_tied_head_are_one(self, copied: Made) -> None:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

        folder = rewrite(copied(tie_word_embeddings=True), change)
        assert self.agree(folder).tied_head is True
        assert open_model(folder).weights.parameters() == sum(
            p.numel() for p in load_reference(folder).parameters()
        )

    def test_a_head_that_differs_from_the_embedding_is_not_tied(self, copied: Made) -> None:
        folder = copied()
        edit_json(folder / "config.json", tie_word_embeddings=True)
        assert self.agree(folder).tied_head is False

    def test_a_lone_head_serves_as_the_embedding(self, copied: Made) -> None:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")

        assert self.agree(rewrite(copied(tie_word_embeddings=True), change)).tied_head is True

    def test_an_untied_model_without_a_head_is_refused(self, copied: Made) -> None:
        folder = copied(tie_word_embeddings=True)
        edit_json(folder / "config.json", tie_word_embeddings=False)
        assert "lm_head.weight is missing" in mismatch(folder)

    def test_a_file_of_the_bare_model_needs_no_prefix(self, copied: Made) -> None:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            for key in list(tensors):
                tensors[key.removeprefix("model.")] = tensors.pop(key)

        assert self.agree(rewrite(copied(tie_word_embeddings=True), change)).tied_head is True


def test_all_problems_of_the_weights_are_in_one_error(copied: Made) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.q_proj.weigth"] = tensors.pop(
            "model.layers.0.self_attn.q_proj.weight"
        )
        tensors["model.norm.weight"] = torch.zeros(63)
        tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(96, 64, dtype=torch.int8)
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)

    why = mismatch(rewrite(copied(), change))
    missing = "model.layers.0.self_attn.q_proj.weight is missing (did you mean 'model.layers.0"
    assert missing in why
    assert "model.norm.weight is [63], but config.json makes it [64]" in why
    assert "model.layers.1.mlp.up_proj.weight is I8" in why
    assert "model.layers.0.self_attn.q_proj.bias is not part of a llama model" in why


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"vocab_size": 319}, "[320, 64], but config.json makes it [319, 64]"),
        ({"num_hidden_layers": 1}, "model.layers.1.input_layernorm.weight is not part"),
        ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight is missing"),
        ({"num_key_value_heads": 4}, "k_proj.weight is [32, 64], but config.json makes it [64"),
        ({"attention_bias": True}, "q_proj.bias is missing"),
        ({"model_type": "qwen3", "head_dim": 16}, "q_norm.weight is missing"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused(
    copied: Made, change: dict[str, Any], part: str
) -> None:
    folder = copied()
    edit_json(folder / "config.json", **change)
    assert part in mismatch(folder)


def test_buffers_that_old_checkpoints_saved_are_ignored(copied: Made) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)

    open_model(rewrite(copied(), change)).close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_an_error_that_names_tensor_and_place(
    copied: Made, value: float
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][40, 7] = value

    weights = open_model(rewrite(copied(dtype="bfloat16"), change)).weights
    weights.rows("layers.1.up.weight", 0, 40)
    with pytest.raises(BuildError) as failure:
        weights.rows("layers.1.up.weight", 32, 64)
    assert failure.value.code == "weights-not-finite"
    assert "up_proj.weight" in failure.value.what
    assert "model.safetensors" in failure.value.what
    assert "the first at [40, 7]" in failure.value.why


def test_huge_finite_values_are_no_error(copied: Made) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"][:2] = torch.finfo(torch.float32).max

    open_model(rewrite(copied(), change)).weights.tensor("norm.weight")


NORM = NormSpec("rms", 1e-6)


class TestParts:
    """Fused and transposed tensors, which later families have."""

    SPEC = DecoderSpec(
        family="fused",
        vocab_size=4,
        hidden_size=2,
        layers=(LayerSpec(AttentionSpec(1, 1, 2), FeedForwardSpec(3), NORM),),
        norm=NORM,
        tied_head=False,
        max_positions=8,
        bos_id=None,
        eos_ids=(),
    )

    def open(self, folder: Path, tensors: dict[str, torch.Tensor]) -> Checkpoint:
        (folder / "config.json").write_text("{}")
        save_file(tensors, folder / "model.safetensors")
        return Checkpoint.open(folder)

    def test_parts_of_a_fused_tensor_are_its_rows(self, tmp_path: Path) -> None:
        fused = torch.randn(6, 3)
        sources = {
            "q": TensorSource("qkv", (4, 3)),
            "k": TensorSource("qkv", (2, 3), start=4),
        }
        weights = Weights(self.open(tmp_path, {"qkv": fused}), self.SPEC, sources)
        assert torch.equal(weights.tensor("q"), fused[:4])
        assert torch.equal(weights.rows("k", 1, 2), fused[5:])
        assert weights.identity("q") != weights.identity("k")
        assert weights.parameters() == fused.numel()

    def test_parts_must_make_up_the_whole(self, tmp_path: Path) -> None:
        checkpoint = self.open(tmp_path, {"qkv": torch.randn(7, 3)})
        sources = {"q": TensorSource("qkv", (4, 3)), "k": TensorSource("qkv", (2, 3), start=4)}
        with pytest.raises(UsageError, match=r"qkv is \[7, 3\], but config.json makes it \[6, 3\]"):
            Weights(checkpoint, self.SPEC, sources)

    def test_a_transposed_tensor_is_turned(self, tmp_path: Path) -> None:
        stored = torch.randn(1030, 8)  # [in, out], more rows than one block
        sources = {
            "a": TensorSource("c_fc", (5, 1030), transposed=True),
            "b": TensorSource("c_fc", (3, 1030), start=5, transposed=True),
        }
        weights = Weights(self.open(tmp_path, {"c_fc": stored}), self.SPEC, sources)
        assert torch.equal(weights.tensor("a"), stored.T[:5])
        assert torch.equal(weights.rows("b", 1, 3), stored.T[6:])
        out = torch.empty(2, 1030)
        assert weights.rows("b", 1, 3, out) is out
        assert torch.equal(out, stored.T[6:])
