"""llama-bench's JSON: the keys its own tools ask for, and our protocol beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mobilepack.contract.manifest import Manifest
from mobilepack.report.llama_bench import llama_bench
from mobilepack.report.runs import Runs
from tests.packages import toy_package
from tests.report.records import UTC, a_bench, a_test

# What llama.cpp's scripts/compare-llama-bench.py (commit 05f3b20) misses with an error.
WANTED = {
    *(
        "cpu_info",
        "gpu_info",
        "backends",
        "n_gpu_layers",
        "tensor_buft_overrides",
        "model_filename",
    ),
    *("model_type", "n_batch", "n_ubatch", "embeddings", "cpu_mask", "cpu_strict", "poll"),
    *("n_threads", "type_k", "type_v", "use_mmap", "no_kv_offload", "split_mode", "main_gpu"),
    *("tensor_split", "flash_attn", "n_prompt", "n_gen", "n_depth", "build_commit", "test_time"),
    "avg_ts",
}


def _rows(tmp_path: Path, *benches: Any) -> list[dict[str, Any]]:
    manifest = Manifest.read(toy_package(tmp_path / "p", quantised=True) / "manifest.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = llama_bench(manifest, Runs((), benches, ()))
    rows: list[dict[str, Any]] = json.loads(text, parse_constant=refuse)
    return rows


def test_it_has_the_keys_that_llama_cpp_asks_for(tmp_path: Path) -> None:
    prompt, gen = _rows(tmp_path, a_bench("id"))
    assert prompt.keys() >= WANTED
    assert all(isinstance(prompt[key], str | int | float) for key in WANTED)  # SQLite's own types
    assert prompt.keys() >= {"avg_ns", "stddev_ns", "stddev_ts", "samples_ns", "samples_ts"}
    assert (prompt["n_prompt"], prompt["n_gen"], prompt["n_depth"]) == (8, 0, 0)
    assert (gen["n_prompt"], gen["n_gen"]) == (0, 4)
    assert prompt["samples_ns"] == [10_000_000] * 5
    assert prompt["samples_ts"] == [800.0] * 5
    assert prompt["avg_ns"] == 10_000_000
    assert isinstance(gen["stddev_ns"], int)
    assert prompt["type_k"] == "f32"
    assert prompt["test_time"] == UTC


def test_it_says_our_protocol_and_the_trust(tmp_path: Path) -> None:
    ours = _rows(tmp_path, a_bench("id"))[1]["mobilepack"]
    assert (ours["trust"], ours["trust_reason"]) == ("NOISY", "spread 1.0%")
    assert ours["protocol"]["clock"] == "calls of the program"
    assert ours["protocol"]["warmups"] == 3
    assert ours["instructions_per_token"] == 123456.0


def test_what_is_no_number_in_json_is_null(tmp_path: Path) -> None:
    test = a_test(8, 0, "VALID").model_copy(update={"avg_ts": float("inf"), "avg_ns": float("nan")})
    bench = a_bench("id").model_copy(update={"tests": (test,)})
    (row,) = _rows(tmp_path, bench)
    assert row["avg_ts"] is None
    assert row["avg_ns"] is None


def test_without_timings_it_is_an_empty_array(tmp_path: Path) -> None:
    assert _rows(tmp_path) == []
