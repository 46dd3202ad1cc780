"""Predictions follow from the shapes, and real packages cost what was predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.plan import Prediction, plan
from mobilepack.commands.plan_sizes import kv_bytes_per_token, stored_bytes
from mobilepack.contract.manifest import Recipe
from mobilepack.models.layer_spec import (
    AttentionSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    RopeSpec,
)
from mobilepack.models.spec import DecoderSpec
from mobilepack.pipeline.plan import Choices

SMOLLM2 = LayerSpec(
    AttentionSpec(n_heads=9, n_kv_heads=3, head_dim=64, rope=RopeSpec("default", 1e5, 64)),
    FeedForwardSpec(1536),
    NormSpec("rms", 1e-5),
)


def _spec(layer: LayerSpec, count: int) -> DecoderSpec:
    return DecoderSpec("llama", 49152, 576, (layer,) * count, layer.norm, True, 8192, 1, (2,))


def _linear(rows: int, columns: int, **recipe: Any) -> int:
    return stored_bytes("layers.0.q.weight", (rows, columns), Recipe(**recipe))


def _embedding(rows: int, columns: int, **recipe: Any) -> int:
    return stored_bytes("embed.weight", (rows, columns), Recipe(**recipe))


def test_int4_rows_carry_a_16_bit_scale_per_group() -> None:
    assert _linear(1, 576) == 288 + 2 * 18
    assert _linear(1, 1536, group_size=128) == 768 + 2 * 12


def test_a_group_that_does_not_divide_is_never_fp32() -> None:
    assert _linear(1, 576, group_size=128) == 288 + 2 * 9  # groups of 64
    assert _linear(1, 100) == 100 + 4  # int8 with a scale per row


def test_embeddings_are_stored_as_asked() -> None:
    assert _embedding(10, 576, embedding="4w") == 10 * (288 + 2 * 18)
    assert _embedding(10, 576, embedding="8w") == 10 * (576 + 4)
    assert _embedding(10, 576, embedding="fp32") == 10 * 4 * 576


def test_vectors_stay_in_fp32() -> None:
    assert stored_bytes("norm.weight", (576,), Recipe()) == 4 * 576


def test_a_position_of_the_cache_is_keys_and_values_of_all_layers() -> None:
    spec = _spec(SMOLLM2, 30)
    assert kv_bytes_per_token(spec, Recipe(kv_cache="fp32")) == 30 * 2 * 3 * 64 * 4
    assert kv_bytes_per_token(spec, Recipe(kv_cache="fp16")) == 30 * 2 * 3 * 64 * 2
    assert kv_bytes_per_token(spec, Recipe(kv_cache="int8")) == 30 * 2 * 3 * (64 + 4)


@given(st.integers(1, 8), st.integers(1, 16), st.sampled_from([32, 64, 128]))
def test_more_of_anything_never_costs_less(rows: int, groups: int, size: int) -> None:
    cost = _linear(rows, groups * size, group_size=size)
    assert cost < _linear(rows + 1, groups * size, group_size=size)
    assert cost < _linear(rows, (groups + 1) * size, group_size=size)
    assert cost < _linear(rows, groups * size, linear="fp32", group_size=0)


def _plan(model: Path, **choices: Any) -> Prediction:
    (found,) = plan(BuildOptions(model=str(model), choices=Choices(**choices)))
    return found


def test_the_parts_make_up_the_whole(llama: Path) -> None:
    found = _plan(llama)
    assert sum(part.bytes for part in found.components) == found.file_bytes
    assert sum(part.parameters for part in found.components) == found.parameters
    assert found.kv_cache_bytes == found.kv_bytes_per_token * found.max_seq_len == 256 * 128


@pytest.mark.parametrize(
    ("choices", "shared"),
    [
        ({}, True),
        ({"linear": "fp32"}, True),
        ({"embedding": "8w"}, False),
        ({"linear": "fp32", "embedding": "8w"}, False),
    ],
    ids=["int4", "fp32", "int8 table", "fp32 head"],
)
def test_a_tied_head_shares_what_is_stored_alike(
    tied: Path, choices: dict[str, Any], shared: bool
) -> None:
    found = _plan(tied, **choices)
    head = next(part for part in found.components if part.name == "output head")
    counted = sum(part.parameters for part in found.components)
    assert (head.parameters == 0) is shared
    assert (counted == found.parameters) is shared


def test_what_a_choice_costs_shows(llama: Path) -> None:
    base = _plan(llama)
    assert _plan(llama, embedding="8w").file_bytes > base.file_bytes
    assert _plan(llama, linear="fp32").file_bytes > 2 * base.file_bytes
    assert _plan(llama, max_seq_len=64).kv_cache_bytes * 2 == base.kv_cache_bytes
    assert _plan(llama, prefill_chunk=16).activations_bytes < base.activations_bytes


def test_the_verb_prints_text_and_one_document(run: Callable[..., Any], llama: Path) -> None:
    text, document = run("plan", llama).out, run("plan", llama, "--json").document
    (found,) = document["predictions"]
    assert found == {**dataclasses.asdict(_plan(llama)), "recipe": found["recipe"]} | {
        "components": found["components"]
    }
    assert "KV cache     32.8 kB (256 bytes per token)" in text
    assert "about" in text.splitlines()[-1]
    assert "(" in text.splitlines()[-1]


def test_a_dry_run_writes_nothing(run: Callable[..., Any], llama: Path, tmp_path: Path) -> None:
    ran = run("build", llama, "-o", "mine", "--dry-run")
    assert ran.code == 0
    assert "would write mine/xnnpack/" in ran.out
    assert not (tmp_path / "mine").exists()
    assert run("build", llama, "--dry-run", "--json").document["kind"] == "plan"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--max-seq-len", "4096"], "sequence-too-long"),
        (["--prefill-chunk", "129"], "chunk-too-long"),
        (["--recipe", "fp32", "--group-size", "32"], "group-of-fp32"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "build"])
def test_choices_that_contradict_are_usage_errors(
    run: Callable[..., Any], llama: Path, verb: str, arguments: list[str], code: str
) -> None:
    ran = run(verb, llama, *arguments, "--json")
    assert ran.code == ran.document["exit_code"] == 2
    assert ran.document["code"] == code


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"embedding": "8w", "group_size": 64},
        {"linear": "fp32"},
        {"max_seq_len": 64, "prefill_chunk": 8},
        {"max_seq_len": 512, "prefill_chunk": 64, "kv_cache": "fp32"},
        {"kv_cache": "int8"},
    ],
    ids=["default", "8w", "fp32", "short", "flat", "int8"],
)
def test_a_real_package_costs_what_was_predicted(tmp_path: Path, choices: dict[str, Any]) -> None:
    options = BuildOptions(out=tmp_path, choices=Choices(**choices))
    (predicted,) = plan(options)
    (built,) = build(options)
    manifest = built.manifest
    file_bytes = next(entry.bytes for entry in manifest.files if entry.path == "model.pte")
    assert predicted.file_bytes == pytest.approx(file_bytes, rel=0.05)
    assert predicted.kv_cache_bytes == manifest.memory.kv_cache_bytes
    assert predicted.parameters == manifest.parameters
    weights = sum(part.bytes for part in predicted.components if part.parameters)
    assert weights == pytest.approx(manifest.memory.parameters_bytes, rel=0.05)
    activations = manifest.memory.activations_bytes
    assert predicted.activations_bytes == pytest.approx(activations, rel=0.2)
