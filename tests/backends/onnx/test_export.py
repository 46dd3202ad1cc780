"""torch.onnx's graph of the growing form, run by ONNX Runtime, equals the eager decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from mobilepack.backends.onnx.export import WEIGHTS, export_onnx, input_names, output_names
from mobilepack.contract.manifest import Manifest
from mobilepack.harness.onnx_program import OnnxProgram
from mobilepack.models.decoder import with_weights
from mobilepack.models.families.registry import family_of
from mobilepack.models.growing import past_shapes
from mobilepack.models.spec import DecoderSpec
from mobilepack.pipeline.onnx import method_of
from tests.matrix.cases import CASES
from tests.models.networks import (
    RandomWeights,
    feed,
    random_ids,
    relative_rms,
    same_top1,
    tables,
    tiny_spec,
)

pytestmark = pytest.mark.slow

CONTEXT, LONGEST = 40, 16
CALLS = (8, 1, 1, 5, 7, 1, 1)
MAX_RMS_OVER_STD = 1e-5  # issue 8: the oracle's own limit

# one of each: sliding window, per-head norm, soft caps and tanh-GELU, linear biases, learned
# positions, parallel blocks with partial rotation, sizes that differ from layer to layer
KINDS = ("llama", "mistral", "qwen3", "gemma2", "bloom", "opt", "phi", "openelm", "gpt2")


def _spec(name: str) -> DecoderSpec:
    case = next(case for case in CASES if case.name == name)
    config = {"model_type": case.model_type, **case.keys}
    return family_of(config).read(config)


class Described:
    """As much of a manifest as the program reads."""

    def __init__(self, spec: DecoderSpec) -> None:
        self.methods = (method_of(spec, LONGEST, CONTEXT),)


def exported(spec: DecoderSpec, folder: Path) -> tuple[Path, RandomWeights]:
    weights, path = RandomWeights(spec), folder / "model.onnx"
    export_onnx(spec, weights, tables(spec, CONTEXT), (CONTEXT, LONGEST), path, lambda share: None)
    return path, weights


def opened(spec: DecoderSpec, path: Path) -> OnnxProgram:
    manifest: Any = Described(spec)
    checked: Manifest = manifest
    return OnnxProgram(path, checked, 1)


@pytest.mark.parametrize("name", KINDS)
def test_onnx_runtime_computes_what_the_decoder_does(name: str, tmp_path: Path) -> None:
    spec = _spec(name)
    path, weights = exported(spec, tmp_path)
    onnx.checker.check_model(str(path), full_check=True)
    program = opened(spec, path)
    decoder = with_weights(spec, CONTEXT, weights)
    for seed in (0, 1):  # a second prompt over what the first left
        ids, rows, at = random_ids(spec, sum(CALLS), seed), [], 0
        for count in CALLS:
            rows.append(torch.from_numpy(program(np.array(ids[at : at + count]), at).copy()))
            at += count
        ours, theirs = torch.stack(rows), feed(decoder, ids, CALLS)
        assert relative_rms(ours, theirs) <= MAX_RMS_OVER_STD
        assert same_top1(ours, theirs)


def test_the_graph_has_the_names_and_shapes_that_others_expect(tmp_path: Path) -> None:
    spec = tiny_spec("qwen3")  # its head is tied
    path, weights = exported(spec, tmp_path)
    graph = onnx.load(path, load_external_data=False).graph
    assert [i.name for i in graph.input] == input_names(len(spec.layers))
    assert [o.name for o in graph.output] == output_names(len(spec.layers))
    method = method_of(spec, LONGEST, CONTEXT)
    for found, described in zip(graph.input, method.inputs, strict=True):
        sizes = [d.dim_value for d in found.type.tensor_type.shape.dim]
        assert [s or None for s in sizes] == [
            None if at in described.dynamic else size for at, size in enumerate(described.shape)
        ]
    assert past_shapes(spec, CONTEXT)[0] == method.inputs[2].shape
    numbers = sum(t.numel() for name, t in weights.items() if name != "head.weight")
    beside = (tmp_path / WEIGHTS).stat().st_size
    assert 4 * numbers <= beside + path.stat().st_size < 4 * numbers + 60_000  # the head once


def test_the_last_position_can_be_reached_and_rewound(tmp_path: Path) -> None:
    spec = tiny_spec()
    path, weights = exported(spec, tmp_path)
    program, decoder = opened(spec, path), with_weights(spec, CONTEXT, weights)
    ids = random_ids(spec, CONTEXT)
    calls = (16, 16, 7, 1)
    theirs = feed(decoder, ids, calls)
    for _ in range(2):
        rows, at = [], 0
        for count in calls:
            rows.append(torch.from_numpy(program(np.array(ids[at : at + count]), at).copy()))
            at += count
        assert relative_rms(torch.stack(rows), theirs) <= MAX_RMS_OVER_STD
