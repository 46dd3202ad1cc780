"""Faults in the lowering for QNN, in packages that were really built, named by their operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.build import BuildOptions, build
from mobilepack.contract.explanation import Explanation
from mobilepack.pipeline.plan import Choices
from tests.explain.lowering_faults import plant
from tests.explain.test_static import (
    _checkpoint,
    _explained,
    _huge,
    _same,
    _transposed,
    _with_program_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.sdk]


def _build(checkpoint: Path, out: Path, recipe: str = "fp16", group: int = 0) -> Path:
    asked = Choices(linear=recipe, group_size=group, max_seq_len=48, prefill_chunk=16)
    return build(BuildOptions(str(checkpoint), ("qnn",), out, asked))[0].folder


def _has(found: Explanation, wanted: dict[str, Any]) -> None:
    assert (found.outcome, found.stage) == ("found", "lowering"), found
    for key, value in wanted.items():
        assert value in str(getattr(found, key)), found


PLANTED: dict[str, tuple[str, int, dict[str, str]]] = {
    "transposed": (
        "fp16",
        0,
        {
            "layer": "layers.0",
            "operator": "linear",
            "parameter": "layers.0.o.weight",
            "cause": "transposed-weight",
        },
    ),
    "swapped": (
        "16a8w",
        0,
        {
            "layer": "layers.1",
            "operator": "linear",
            "parameter": "layers.1.q.weight",
            "cause": "swapped-heads",
            "text": "heads 1 and 3",
        },
    ),
    "squeezed": (
        "fp16",
        0,
        {"layer": "layers.0", "operator": "rope", "cause": "wrong-rope-factor", "text": "0.25"},
    ),
    "scaled row": (
        "16a4w",
        0,
        {
            "layer": "layers.0",
            "operator": "linear",
            "parameter": "layers.0.up.weight",
            "cause": "wrong-row-scale",
            "text": "row 5",
        },
    ),
    "scaled block": (
        "16a4w",
        32,
        {
            "layer": "layers.0",
            "operator": "linear",
            "parameter": "layers.0.up.weight",
            "cause": "mis-scaled-group",
            "text": "row 5, group 1 (columns 32 to 63)",
        },
    ),
    "sees ahead": (
        "fp16",
        0,
        {
            "layer": "layers.0",
            "operator": "attention",
            "cause": "mask-off-by-one",
            "text": "the token after it",
        },
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_in_the_lowering_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, group, wanted = PLANTED[name]
    model = _checkpoint(tmp_path / "model", _same)
    plant(monkeypatch, name, tmp_path / "site")
    package = _build(model, tmp_path / "out", recipe, group)
    result, found = _explained(package)
    assert not result.parity.passed
    _has(found, wanted)
    assert found.explained > 0.8
    assert found.differences == (), "the same code makes the same graphs and weights"


@pytest.mark.parametrize("recipe", ["fp16", "16a4w"])
def test_a_clean_package_has_no_culprit(recipe: str, tmp_path: Path) -> None:
    package = _build(_checkpoint(tmp_path / "model", _same), tmp_path / "out", recipe)
    result, found = _explained(package)
    assert result.parity.passed
    assert (found.outcome, found.cause) == ("no divergence", ""), found


def test_a_saturated_fp16_activation_is_named(tmp_path: Path) -> None:
    """Nothing is altered: half precision cannot hold what this model computes."""
    package = _build(_checkpoint(tmp_path / "model", _huge), tmp_path / "out")
    result, found = _explained(package)
    assert not result.parity.passed
    wanted = {"layer": "layers.1", "operator": "linear", "parameter": "layers.1.up.weight"}
    _has(found, {**wanted, "cause": "fp16-saturation", "text": "65504"})


def test_another_program_is_told_from_a_wrong_one(tmp_path: Path) -> None:
    """Of a program that this version does not make, only what it gives anyway can be read."""
    packages = {
        name: _build(_checkpoint(tmp_path / name / "model", change), tmp_path / name / "out")
        for name, change in (("good", _same), ("other", _transposed))
    }
    result, found = _explained(_with_program_of(*packages.values(), tmp_path / "bad"))
    assert not result.parity.passed
    _has(found, {"layer": "layers.1", "cause": "between-states"})
    assert "keys and values of layers.2 are wrong" in found.text
    assert "another one than this version" in found.text
