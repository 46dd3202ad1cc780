"""The committed results of compression say what docs/compression.md claims of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.compress import RESULT, SCHEMA, render


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    document = json.loads(RESULT.read_text())
    assert (document["schema"], document["representative"]) == (SCHEMA, False)
    return {row["options"]: row for row in document["variants"]}


def ratio(rows: dict[str, dict[str, Any]], name: str) -> float:
    base = "llama.cpp BF16" if name.startswith("llama") else "--recipe fp32"
    return float(rows[name]["perplexity"] / rows[base]["perplexity"])


def test_calibration_beats_rounding_and_llama_cpp_s_best_four_bits(
    rows: dict[str, dict[str, Any]],
) -> None:
    calibrated = ratio(rows, "--calibrate gptq")
    assert calibrated < ratio(rows, "")
    assert calibrated <= ratio(rows, "llama.cpp Q4_K_M")
    assert rows["--calibrate gptq"]["bytes"] <= rows["llama.cpp Q4_K_M"]["bytes"]


def test_both_sides_measured_the_same_model_and_text(rows: dict[str, dict[str, Any]]) -> None:
    ours, theirs = rows["--recipe fp32"]["perplexity"], rows["llama.cpp BF16"]["perplexity"]
    assert ours == pytest.approx(theirs, rel=1e-3)  # its KV cache is fp16


def test_what_is_dropped_makes_the_file_smaller_and_zeros_do_not(
    rows: dict[str, dict[str, Any]],
) -> None:
    plain = rows[""]["bytes"]
    assert rows["--prune wanda:0.5"]["bytes"] == plain
    for how in ("--prune layers:4", "--prune width:0.25", "--prune-vocab texts.txt"):
        assert rows[how]["bytes"] < plain


def test_the_table_has_a_row_for_each(rows: dict[str, dict[str, Any]]) -> None:
    table = render()
    assert table.count("\n| ") == len(rows) + 2
    assert all(options in table for options in rows)
