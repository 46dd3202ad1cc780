"""The benchmark of depth: what a row says, and (slow) a small model's rows from the emulator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.qnn_depth import (
    CONTEXT,
    RESULT,
    STEPS,
    compared,
    render,
    request_for,
    rows_of,
    summary,
)
from mobilepack.contract.reference import record, sample_ids
from tests.models.networks import tiny_spec


def test_a_row_is_held_against_its_own_position(tmp_path: Path) -> None:
    spec = tiny_spec()
    request = request_for(spec, tmp_path, 2)
    assert len(request.passages[0][1]) == CONTEXT - STEPS + 2
    random, following = np.random.default_rng(0), [-1] * CONTEXT
    logits = random.standard_normal((CONTEXT, spec.vocab_size)).astype(np.float32)
    moved = logits + 0.1 * random.standard_normal(logits.shape).astype(np.float32)
    sampled = sample_ids(spec.vocab_size)
    rows = {
        "quantised": record(logits, following, sampled),
        "floor": record(moved, following, sampled),
    }
    good = compared(request, rows, CONTEXT - 2, logits[CONTEXT - 2], 1.26)
    assert (good["method"], good["cosine"], good["same_top1"]) == ("decode", 1.0, True)
    assert good["wall_s"] == 1.3
    assert 0.98 < good["floor_cosine"] < 1 - 1e-3
    other = compared(request, rows, CONTEXT - 3, logits[CONTEXT - 2], 1.0)
    assert other["cosine"] < 0.5
    assert not other["same_top1"]
    prompt = compared(request, rows, CONTEXT - STEPS - 1, logits[CONTEXT - STEPS - 1], 9.0)
    assert prompt["method"] == "prefill"
    assert summary([prompt, good, other]) == {
        "steps": 2,
        "cosine_min": other["cosine"],
        "same_top1": 1,
    }


def test_the_committed_result_is_within_twice_the_floor() -> None:
    """Thirty layers of random weights for 32 steps: the limit that verify takes of a deep model."""
    document = json.loads(RESULT.read_text())
    steps = [row for row in document["rows"] if row["method"] == "decode"]
    assert [row["position"] for row in steps] == list(range(CONTEXT - STEPS, CONTEXT))
    assert all(1 - row["cosine"] <= 2 * (1 - row["floor_cosine"]) for row in steps)
    assert summary(document["rows"]) == document["summary"]
    assert f"{document['summary']['cosine_min']:.5f} or better" in " ".join(render().split())


@pytest.mark.slow
@pytest.mark.sdk
def test_a_small_model_agrees_in_every_step() -> None:
    """Two steps after a prompt of 96 tokens; verify's limit, twice the floor or 0.999."""
    floor, *rows = rows_of(tiny_spec(max_position_embeddings=CONTEXT), 2)
    assert floor["positions"] == CONTEXT - STEPS + 2
    assert [row["position"] for row in rows] == [95, 96, 97]
    least = min(0.999, 1 - 2 * (1 - floor["floor_cosine_min"]))
    assert min(row["cosine"] for row in rows) >= least
