"""Matrices that a file holds once per block although they are equal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mobilepack.commands.build import BuildOptions, build
from mobilepack.models.weights import open_model
from mobilepack.pipeline.plan import Choices
from tests.models.checkpoints import VOCAB_SIZE, make_checkpoint, reference_model, write_tokenizer

LAYERS = 4


def shared(folder: Path, *, but: int | None = None) -> Path:
    """Write a Llama whose feed-forwards are equal, save for one number in one of them."""
    model = reference_model("llama", num_hidden_layers=LAYERS)
    for layer in model.model.layers[1:]:
        layer.mlp.load_state_dict(model.model.layers[0].mlp.state_dict())
    if but is not None:
        with torch.no_grad():
            model.model.layers[but].mlp.up_proj.weight[-1, -1] += 0.01
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def test_equal_matrices_count_once(tmp_path: Path) -> None:
    plain = open_model(make_checkpoint(tmp_path / "plain", num_hidden_layers=LAYERS))
    once = open_model(shared(tmp_path / "shared"))
    ffn = 3 * 64 * 96
    assert plain.weights.parameters() - once.weights.parameters() == (LAYERS - 1) * ffn
    assert once.weights.identity("layers.3.up.weight") == once.weights.identity(
        "layers.0.up.weight"
    )
    assert once.weights.identity("layers.3.q.weight") != once.weights.identity("layers.0.q.weight")
    assert once.spec.vocab_size == VOCAB_SIZE


def test_one_number_is_a_difference(tmp_path: Path) -> None:
    model = open_model(shared(tmp_path, but=2))
    names = [f"layers.{index}.up.weight" for index in range(LAYERS)]
    same = [model.weights.identity(n) == model.weights.identity(names[0]) for n in names]
    assert same == [True, True, False, True]


@pytest.mark.slow
def test_they_are_stored_once(tmp_path: Path) -> None:
    choices = Choices(max_seq_len=32, prefill_chunk=8)
    sizes = []
    for but in (None, 1):
        model = shared(tmp_path / f"{but}", but=but)
        (built,) = build(BuildOptions(str(model), out=tmp_path / f"out-{but}", choices=choices))
        sizes.append((built.folder / "model.pte").stat().st_size)
    up = 64 * 96 * (4 + 16 / 32) / 8
    assert up <= sizes[1] - sizes[0] <= up + 2000
