"""Timings as llama-bench's own JSON, for the tools that read it.

Keys are those of llama.cpp's `llama-bench -o json`; `scripts/compare-llama-bench.py` wants the same
ones and drops what it does not know. The clock of both leaves tokenisation, sampling and loading
out. What is ours stands under `mobilepack`: the protocol, the device and the trust in the numbers.
"""

from __future__ import annotations

import math

from pydantic_core import to_json

from mobilepack.contract.bench import Bench, BenchTest
from mobilepack.contract.manifest import KvCacheRecipe, Manifest
from mobilepack.report.runs import Runs

_KV_TYPES: dict[KvCacheRecipe, str] = {"fp32": "f32", "fp16": "f16", "int8": "i8"}
"""ggml's names of element types; its q8_0 has one scale per 32 values, ours one per head."""

_NOT_OURS: dict[str, object] = {
    "gpu_info": "",
    "cpu_mask": "0x0",
    "cpu_strict": False,
    "poll": 0,
    "n_gpu_layers": 0,
    "split_mode": "none",
    "main_gpu": 0,
    "no_kv_offload": False,
    "flash_attn": False,
    "tensor_split": "0.00",
    "tensor_buft_overrides": "none",
    "embeddings": False,
    "no_op_offload": 0,
}
"""Settings of llama.cpp that ExecuTorch lacks, each at the value that says so."""


def llama_bench(manifest: Manifest, runs: Runs) -> str:
    """Return a JSON array with one object per test of the newest timing of each device."""
    rows = [_row(manifest, bench, test) for bench in runs.bench for test in bench.tests]
    return to_json(rows, indent=2, inf_nan_mode="null").decode() + "\n"


def _row(manifest: Manifest, bench: Bench, test: BenchTest) -> dict[str, object]:
    kv_type = _KV_TYPES[manifest.plan.recipe.kv_cache]
    return {
        "build_commit": manifest.plan_id[:8],
        "build_number": 0,
        "cpu_info": bench.environment.cpu,
        "backends": bench.backend,
        "model_filename": manifest.plan.model.source,
        "model_type": f"{bench.model} {bench.recipe}",
        "model_size": bench.program_bytes,
        "model_n_params": bench.parameters,
        "n_batch": bench.protocol.prefill_chunk,
        "n_ubatch": bench.protocol.prefill_chunk,
        "n_threads": bench.protocol.threads,
        "type_k": kv_type,
        "type_v": kv_type,
        "use_mmap": True,  # pybindings and the native runner both load by MmapDataLoader
        **_NOT_OURS,
        "n_prompt": test.n_prompt,
        "n_gen": test.n_gen,
        "n_depth": test.n_depth,
        "test_time": bench.utc,
        "avg_ns": _whole(test.avg_ns),
        "stddev_ns": _whole(test.stddev_ns),
        "avg_ts": test.avg_ts,
        "stddev_ts": test.stddev_ts,
        "samples_ns": test.samples_ns,
        "samples_ts": test.samples_ts,
        "mobilepack": _ours(bench, test),
    }


def _whole(nanoseconds: float) -> int | None:
    return round(nanoseconds) if math.isfinite(nanoseconds) else None


def _ours(bench: Bench, test: BenchTest) -> dict[str, object]:
    return {
        "plan_id": bench.plan_id,
        "target": bench.target,
        "device": bench.device,
        "representative": bench.representative,
        "trust": test.trust,
        "trust_reason": test.trust_reason,
        "instructions_per_token": test.instructions_per_token,
        "protocol": bench.protocol.model_dump(),
    }
