"""Planted faults in programs of the static form: an altered checkpoint's, in a good package."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.explain import explain
from mobilepack.commands.verify import Ladder, VerifyOptions, VerifyResult
from mobilepack.contract.explanation import Explanation
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.harness.host import HostHarness
from mobilepack.pipeline.plan import Choices
from tests.explain.faults import sign
from tests.models.checkpoints import make_checkpoint

pytestmark = pytest.mark.slow
Weights = dict[str, torch.Tensor]


def _checkpoint(folder: Path, change: Callable[[Weights], None], **config: Any) -> Path:
    from safetensors.torch import load_file, save_file

    made = make_checkpoint(folder, num_hidden_layers=3, **config)
    (path,) = made.glob("*.safetensors")
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
    return made


def _same(weights: Weights) -> None:
    """Change nothing."""


def _transposed(weights: Weights) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    weights[name] = weights[name].T.contiguous()


def _huge(weights: Weights) -> None:
    weights["model.layers.1.mlp.up_proj.weight"] *= 6e4  # the weights themselves stay below 65504
    weights["model.layers.1.mlp.down_proj.weight"] /= 6e4


def _plus_one(weights: Weights) -> None:
    weights["model.layers.1.post_attention_layernorm.weight"] += 1


def _build(checkpoint: Path, out: Path, target: str, **choices: Any) -> Path:
    asked = Choices(linear="fp16", max_seq_len=64, prefill_chunk=16, **choices)
    options = BuildOptions(str(checkpoint), (target,), out, asked)
    return build(options)[0].folder


def _with_program_of(good: Path, other: Path, folder: Path) -> Path:
    """Return a good package with another one's program."""
    shutil.copytree(good, folder, ignore=shutil.ignore_patterns("runs"))
    names = [e.path for e in Manifest.read(good / MANIFEST).files if e.path.startswith("model.")]
    for name in names:
        shutil.copyfile(other / name, folder / name)
    sign(folder, *names)
    return folder


def _explained(package: Path) -> tuple[VerifyResult, Explanation]:
    options = VerifyOptions(threads=1, exported="never", questions=0, decode_steps=4)
    ladder = Ladder(package, options)
    result = explain(ladder, ladder.on(HostHarness()))
    assert result.explanation is not None
    return result, result.explanation


@pytest.fixture(scope="module")
def coreml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a good Core ML package in half precision."""
    root = tmp_path_factory.mktemp("coreml")
    return _build(_checkpoint(root / "model", _same), root / "out", "coreml-ios18")


def test_a_clean_core_ml_package_has_no_culprit(coreml: Path) -> None:
    result, found = _explained(coreml)
    assert result.passed
    assert (found.outcome, found.cause) == ("no divergence", "")
    assert found.growth[-1].layer == "head"
    assert all(growth.error <= growth.limit for growth in found.growth)


FAULTS: dict[str, tuple[Callable[[Weights], None], dict[str, Any], dict[str, str]]] = {
    "a transposed weight": (
        _transposed,
        {},
        {
            "layer": "layers.1",
            "operator": "linear",
            "parameter": "layers.1.o.weight",
            "cause": "transposed-weight",
        },
    ),
    "a wrong rope base": (
        _same,
        {"rope_theta": 500.0},
        {
            "layer": "layers.0",
            "operator": "rope",
            "cause": "wrong-rope-base",
            "text": r"about (49[5-9]|50[0-5])$",
        },
    ),
    "a norm's weight": (
        _plus_one,
        {},
        {
            "layer": "layers.1",
            "operator": "rms_norm",
            "parameter": "layers.1.mlp_norm.weight",
            "cause": "weight-plus-one",
        },
    ),
    "another activation": (
        _same,
        {"hidden_act": "gelu"},
        {
            "layer": "layers.0",
            "operator": "silu",
            "cause": "wrong-activation",
            "text": "it computes GELU in its erf form, and the model has SiLU",
        },
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_core_ml_program_is_named(fault: str, coreml: Path, tmp_path: Path) -> None:
    _check_named(fault, coreml, tmp_path)


def test_a_fault_inside_a_delegate_is_named(tmp_path: Path) -> None:
    good = _build(_checkpoint(tmp_path / "good", _same), tmp_path / "built", "coreml")
    _check_named("a norm's weight", good, tmp_path)


def _check_named(fault: str, good: Path, folder: Path) -> None:
    change, config, wanted = FAULTS[fault]
    target = Manifest.read(good / MANIFEST).plan.target
    made = _checkpoint(folder / "model", change, **config)
    other = _build(made, folder / "out", target)
    result, found = _explained(_with_program_of(good, other, folder / "bad"))
    assert not result.parity.passed
    assert found.outcome == "found", found
    assert found.stage == "lowering"
    for key, value in wanted.items():
        assert re.search(value, str(getattr(found, key))), found


def test_a_saturated_fp16_activation_is_named(tmp_path: Path) -> None:
    """Nothing is altered: half precision cannot hold what this model computes."""
    package = _build(_checkpoint(tmp_path / "model", _huge), tmp_path / "out", "coreml-ios18")
    result, found = _explained(package)
    assert not result.parity.passed
    assert (found.layer, found.operator) == ("layers.1", "linear"), found
    assert (found.parameter, found.cause) == ("layers.1.up.weight", "fp16-saturation")
    assert "65504" in found.text
