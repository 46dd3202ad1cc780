"""A checkpoint and a package say what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.components import COMPONENTS, component_of
from mobilepack.commands.inspect import CheckpointView, PackageView, inspect, layer_kinds
from mobilepack.models.layer_spec import (
    AttentionSpec,
    FeedForwardSpec,
    HeadNormSpec,
    LayerSpec,
    NormSpec,
)
from mobilepack.models.spec import DecoderSpec, parameter_shapes
from mobilepack.pipeline.plan import Choices

NORM = NormSpec("rms", 1e-5)


def _view(path: Path) -> CheckpointView:
    view = inspect(str(path))
    assert isinstance(view, CheckpointView)
    return view


def test_a_checkpoint_is_counted_by_component(llama: Path) -> None:
    view = _view(llama)
    parts = {part.name: part for part in view.components}
    assert view.spec.family == "llama"
    assert sum(part.parameters for part in view.components) == view.parameters == 102_720
    assert sum(part.bytes for part in view.components) == 4 * view.parameters
    assert (parts["embedding"].parameters, parts["embedding"].bytes) == (320 * 64, 320 * 64 * 4)
    assert (parts["norms"].tensors, parts["attention"].tensors) == (5, 8)
    assert parts["output head"].parameters == 320 * 64
    assert view.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4
    assert view.tokenizer_files == ("tokenizer.json", "tokenizer_config.json")
    assert view.chat_template


def test_a_tied_head_is_counted_once(tied: Path) -> None:
    view = _view(tied)
    parts = {part.name: part for part in view.components}
    assert parts["output head"] == type(parts["norms"])("output head", 0, 0, 0)
    assert view.dtypes == ("BF16",)
    assert sum(part.bytes for part in view.components) == 2 * view.parameters


def test_every_parameter_belongs_to_a_component() -> None:
    layer = LayerSpec(
        AttentionSpec(4, 2, 16, qk_norm=HeadNormSpec(NORM), qkv_bias=True, o_bias=True),
        FeedForwardSpec(96, bias=True),
        NORM,
    )
    spec = DecoderSpec("llama", 32, 64, (layer,), NORM, False, 64, None, ())
    assert {component_of(name, spec) for name in parameter_shapes(spec)} <= set(COMPONENTS)
    assert component_of("layers.0.q_norm.weight", spec) == "norms"
    assert component_of("layers.0.down.bias", spec) == "feed-forward"
    assert component_of("layers.0.v.bias", spec) == "attention"


def test_equal_layers_are_counted_together() -> None:
    full, sliding = (
        LayerSpec(AttentionSpec(4, 2, 16, window=window), FeedForwardSpec(96), NORM)
        for window in (None, 8)
    )
    kinds = layer_kinds([sliding, full, sliding])
    assert [(kind.count, kind.layer.mixer.window) for kind in kinds] == [(2, 8), (1, None)]


def test_the_verb_prints_a_checkpoint(run: Callable[..., Any], llama: Path) -> None:
    text, document = run("inspect", llama).out, run("inspect", "-m", llama, "--json").document
    assert "family      llama" in text
    assert "licence     not stated" in text
    assert "attention           8      24,576   98,304" in text
    assert document["of"] == "checkpoint"
    assert document["parameters"] == 102_720
    assert document["spec"]["vocab_size"] == 320


def test_without_a_model_the_embedded_one_is_shown(run: Callable[..., Any]) -> None:
    ran = run("inspect")
    assert ran.code == 0
    assert "with a chat template" in ran.out
    assert "not stated" not in ran.out


@pytest.mark.slow
def test_a_package_is_shown_with_its_placement(
    run: Callable[..., Any], llama: Path, tmp_path: Path
) -> None:
    build(BuildOptions(model=str(llama), out=tmp_path / "out", choices=Choices(max_seq_len=32)))
    view = inspect(str(tmp_path / "out"))
    assert isinstance(view, PackageView)
    assert view.manifest.plan.model.family == "llama"
    ran = run("inspect", tmp_path / "out" / "xnnpack")
    assert "all checksums match" in ran.out
    assert "quantised_decomposed" not in ran.out
    program = tmp_path / "out" / "xnnpack" / "model.pte"
    program.write_bytes(program.read_bytes()[:-1] + b"?")
    damaged = run("inspect", tmp_path / "out")
    assert damaged.code == 2
    assert "model.pte was altered" in damaged.err
