"""Random checkpoints of any config are whole, and published sizes have the published numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.models.weights import open_model
from mobilepack.models.zoo.published import published_config, published_names
from mobilepack.models.zoo.random_checkpoint import stored_tensors, write_random_checkpoint
from tests.matrix.cases import CASES, Case

# Model cards, millions; Pythia's and Bloom's count the embedding.
PUBLISHED_MILLIONS = {
    "bloom-560m": 559.2,
    "gemma-2b": 2506.2,
    "openelm-270m": 271.5,
    "phi-1.5": 1418.3,
    "phi-2": 2779.7,
    "pythia-160m": 162.3,
    "qwen2-0.5b": 494.0,
    "qwen2-1.5b": 1543.7,
    "smollm-135m": 134.5,
    "smollm-360m": 361.8,
}
# theirs are nested in a config of text and image, or have tensors fused in ways of their own
ODD = {"llava"}


@pytest.mark.parametrize("name", published_names())
def test_a_published_shape_has_the_published_numbers(name: str) -> None:
    numbers = sum(tensor.numbers for tensor in stored_tensors(published_config(name)))
    assert numbers / 1e6 == pytest.approx(PUBLISHED_MILLIONS[name], abs=0.1)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name not in ODD], ids=lambda case: case.name
)
def test_every_family_reads_what_is_written_for_it(case: Case, tmp_path: Path) -> None:
    config = {"model_type": case.model_type, **case.keys}
    write_random_checkpoint(config, tmp_path / "m")
    model = open_model(str(tmp_path / "m"))
    try:
        total = sum(tensor.numbers for tensor in stored_tensors(config))
        assert total >= model.weights.parameters()
        first = next(iter(model.weights.names()))
        assert model.weights.tensor(first).shape == model.weights.shape(first)
    finally:
        model.close()


def test_the_same_config_makes_the_same_checkpoint(tmp_path: Path) -> None:
    config = {"model_type": CASES[0].model_type, **CASES[0].keys}
    prints = set()
    for name in "ab":
        write_random_checkpoint(config, tmp_path / name / "m")
        with open_model(str(tmp_path / name / "m")).checkpoint as checkpoint:
            prints.add(checkpoint.fingerprint)
    assert len(prints) == 1
