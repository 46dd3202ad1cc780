"""A regression of 1 % in instructions, which no clock of this machine could tell, breaks a gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.compare import compare
from mobilepack.errors import ExitCode
from mobilepack.harness.virtual.phones import Phone
from mobilepack.pipeline.plan import Choices
from tests.models.checkpoints import make_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned")]
NARROW, WIDE = 320, 328  # of an MLP with half of all weights: 1.0 % more instructions
GATE = '[[rule]]\nmetric = "bench/*/instructions_per_token"\nmax_increase = "0.5%"\n'


def _built(folder: Path, width: int) -> Path:
    checkpoint = make_checkpoint(folder / "model", hidden_size=256, intermediate_size=width)
    choices = Choices(linear="fp32", max_seq_len=64, prefill_chunk=32)
    return build(BuildOptions(model=str(checkpoint), out=folder, choices=choices))[0].folder


def _ratios(before: Path, after: Path) -> list[float]:
    named = compare(before, after).changes
    counts = [one for one in named if one.name.endswith("instructions_per_token")]
    assert len(counts) == 2  # of the prompt, of what is generated
    return [one.after / one.before for one in counts if one.before and one.after]


def test_one_percent_more_instructions_breaks_a_gate_and_a_second_run_does_not(
    lab: Phone, run: Callable[..., Any], tmp_path: Path
) -> None:
    before, after = (_built(tmp_path / str(width), width) for width in (NARROW, WIDE))
    gate = tmp_path / "gate.toml"
    gate.write_text(GATE)
    short = ("-d", lab.name, "-p", 16, "-n", 4, "-r", 1, "--warmups", 1)
    for package in (before, before, after):
        assert run("bench", package, *short).code == ExitCode.OK
    first, second = sorted((before / "runs").glob("*/*"))
    assert _ratios(first, second) == pytest.approx([1, 1], abs=1e-4)
    assert run("compare", first, second, "--gate", gate).code == ExitCode.OK
    assert _ratios(before, after) == pytest.approx([1.01, 1.01], abs=1e-3)
    ran = run("compare", before, after, "--gate", gate)
    assert ran.code == ExitCode.CHECK_FAILED
    assert ran.out.count("at most +0.5%") == 2
