"""What is asked to be done to the weights is read strictly and becomes part of the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mobilepack.contract.compression import Compression, Sparsity
from mobilepack.contract.manifest import Recipe
from mobilepack.errors import UsageError
from mobilepack.models.moe_spec import MoeSpec
from mobilepack.pipeline.compression_options import CompressionChoices, compression_for
from tests.models.networks import tiny_spec

SPEC = tiny_spec("llama", num_hidden_layers=8)
QUANTISED = Recipe()
FP32 = Recipe(linear="fp32", group_size=0, embedding="fp32", kv_cache="fp32")


def _for(recipe: Recipe = QUANTISED, **choices: Any) -> Compression | None:
    return compression_for(CompressionChoices(**choices), SPEC, recipe)


def test_nothing_asked_is_nothing_done() -> None:
    assert _for() is None


@pytest.mark.parametrize(
    ("text", "dropped"),
    [("layers:4-6", (4, 5, 6)), ("layers:0", (0,)), ("layers:1,3-4", (1, 3, 4))],
)
def test_blocks(text: str, dropped: tuple[int, ...]) -> None:
    found = _for(prune=(text,))
    assert found is not None
    assert found.dropped_layers == dropped
    assert found.text_sha256 is None


def test_several_at_once() -> None:
    found = _for(prune=("wanda:2:4", "width:0.25", "layers:1"), calibrate="gptq")
    assert found is not None
    assert found.sparsity == Sparsity(share=0.5, zeros=2, of=4)
    assert (found.width, found.dropped_layers, found.calibration) == (0.25, (1,), "gptq")
    assert found.text_sha256 is not None


def test_a_file_counts_by_its_content(tmp_path: Path) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_text("some text")
    other.write_text("some text")
    first = _for(calibrate="awq", text=one, vocabulary=one)
    assert first == _for(calibrate="awq", text=other, vocabulary=other)
    other.write_text("other text")
    assert first != _for(calibrate="awq", text=other, vocabulary=one)
    assert first != _for(calibrate="awq", text=one, vocabulary=other)


@pytest.mark.parametrize(
    "text",
    ["layers:8", "layers:5-3", "layers:0-7", "layers:", "layers:a", "width:0", "width:1.5",
     "width:x", "wanda:0", "wanda:4:2", "wanda:0:4", "wanda:2:4:1", "wanda", "lora:1", ""],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        _for(prune=(text,))
    assert caught.value.code == "invalid-prune"


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fp32"):
        _for(FP32, calibrate="gptq")
    with pytest.raises(UsageError, match="twice"):
        _for(prune=("width:0.2", "width:0.3"))
    with pytest.raises(UsageError, match="nothing would read"):
        _for(calibrate="hqq", text=tmp_path / "any")
    with pytest.raises(UsageError, match="cannot read"):
        _for(vocabulary=tmp_path / "none")
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(UsageError, match="empty"):
        _for(vocabulary=tmp_path / "empty")


def test_experts_are_refused_rather_than_left_out() -> None:
    experts = MoeSpec(experts=4, count=2, size=32)
    layers = tuple(replace(layer, ffn=experts) for layer in SPEC.layers)
    choices = CompressionChoices(calibrate="gptq")
    with pytest.raises(UsageError, match="experts"):
        compression_for(choices, replace(SPEC, layers=layers), QUANTISED)
