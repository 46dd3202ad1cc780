"""Every architecture of llama.cpp that is read gives the decoder that transformers computes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from mobilepack.models.gguf.architectures import ARCHITECTURES
from mobilepack.models.gguf.names import whole_norms
from mobilepack.models.layer_spec import LayerSpec
from mobilepack.models.tables import make_tables
from mobilepack.models.weights import LoadedModel, open_model
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.reference import Eager
from tests.matrix.cases import CHUNK, CONTEXT
from tests.matrix.check import DECODE, FP32, MAX_FP32, PREFILLS, error_of, program_of
from tests.matrix.references import transformers_model
from tests.models.checkpoints import quiet_transformers
from tests.models.gguf.cases import CASES, Case
from tests.models.gguf.writing import Written, write
from tests.models.networks import random_ids

pytestmark = pytest.mark.slow

Make = Callable[[Case], Written]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    known: dict[str, Written] = {}

    def make(case: Case) -> Written:
        if case.name not in known:
            out = tmp_path_factory.mktemp(case.name)
            model = transformers_model(case.model_type, case.keys)
            model.save_pretrained(out / "original")
            known[case.name] = write(out / "original", out, case.arch, case.kinds, case.move)
        return known[case.name]

    return make


@contextmanager
def opened(path: Path) -> Iterator[LoadedModel]:
    model = open_model(path)
    try:
        yield model
    finally:
        model.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parameters_are_those_of_the_checkpoint_with_the_same_numbers(
    case: Case, made: Make
) -> None:
    written = made(case)
    with opened(written.gguf) as found, opened(written.folder) as wanted:
        assert sorted(found.weights.names()) == sorted(wanted.weights.names())
        for name in wanted.weights.names():
            assert torch.equal(found.weights.tensor(name), wanted.weights.tensor(name)), name
        assert without_ropes(found) == without_ropes(wanted)
        tables = make_tables(found.spec, CONTEXT)
        for name, table in make_tables(wanted.spec, CONTEXT).items():
            # Frequencies by the factors in the file, which are float32: angles up to 40.
            assert torch.allclose(tables[name], table, rtol=0, atol=1e-5), name


def without_ropes(model: LoadedModel) -> tuple[object, ...]:
    """Return a model's decoder except how its rotation is spelt, which its tables show."""
    spec = whole_norms(model.spec)
    skipped = ("layers", "bos_id", "eos_ids", "family", "max_positions")
    rest = [getattr(spec, field.name) for field in fields(spec) if field.name not in skipped]
    return (*(_without_rope(layer) for layer in spec.layers), *rest)


def _without_rope(layer: LayerSpec) -> LayerSpec:
    return replace(layer, mixer=replace(layer.mixer, rope=None))  # type: ignore[call-arg]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_program_computes_what_transformers_computes(
    case: Case, made: Make, tmp_path: Path
) -> None:
    written = made(case)
    with opened(written.gguf) as model:
        eager = Eager(
            export_decoder(model.spec, CONTEXT, CHUNK),
            model.weights,
            make_tables(model.spec, CONTEXT),
        )
        program, _ = program_of(eager, model, CONTEXT, FP32, tmp_path / "fp32.pte")
        prompts = [random_ids(model.spec, first + DECODE, i) for i, first in enumerate(PREFILLS)]
    expected = reference(written.folder, prompts, tmp_path / "reference")
    assert error_of(program, prompts, expected) <= MAX_FP32


def reference(folder: Path, prompts: list[tuple[int, ...]], scratch: Path) -> list[torch.Tensor]:
    """Return transformers' logits; with longrope it uses the factors of the program's length."""
    scratch.mkdir()
    config = json.loads((folder / "config.json").read_text())
    rope = config.get("rope_parameters") or {}
    if "long_factor" in rope and rope["original_max_position_embeddings"] < CONTEXT:
        rope["short_factor"] = rope["long_factor"]
    (scratch / "config.json").write_text(json.dumps(config))
    os.link(folder / "model.safetensors", scratch / "model.safetensors")
    _, auto_model = quiet_transformers()
    model = auto_model.from_pretrained(
        scratch, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return [model(torch.tensor([list(ids)]), use_cache=False).logits[0] for ids in prompts]


def test_every_architecture_has_a_case() -> None:
    # MiniCPM's code is not in transformers; its metadata are read in test_config.py.
    assert set(ARCHITECTURES) - {"minicpm"} == {case.arch for case in CASES}
