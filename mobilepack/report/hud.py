"""Figures as records of PyTorch's benchmark database, which its HUD shows.

A record holds one metric: `benchmark`, `model`, `metric` and `runners`, as ExecuTorch's
.github/scripts/extract_benchmark_results.py wrote them and the wiki page "How to integrate with
PyTorch OSS benchmark database" describes. What `extra_info` maps to is text. Repository, branch and
time of the upload are added by the action that uploads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from pydantic_core import to_json

from mobilepack.contract.bench import Bench, BenchTest
from mobilepack.contract.evaluation import Evaluation
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.parity import Parity
from mobilepack.report.runs import Runs

Record = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Figure:
    """One metric of one run; `target` 0 is the database's way to say that there is none."""

    name: str
    values: Sequence[float]
    target: float = 0.0
    extra: Mapping[str, str] = field(default_factory=dict)


def hud(manifest: Manifest, runs: Runs) -> str:
    """Return a JSON array of records: timings, memory, parity and task accuracy of each device.

    Numbers that are not finite are left out, for the database has none.
    """
    return to_json([*_records(manifest, runs)], indent=2).decode() + "\n"


def _records(manifest: Manifest, runs: Runs) -> Iterator[Record]:
    for bench in runs.bench:
        runner = _runner_of_bench(bench)
        for figure in _of_bench(bench):
            yield from _record(manifest, figure, runner, bench.utc)
    for parity in runs.parity:
        for figure in _of_parity(parity):
            yield from _record(manifest, figure, _runner(parity.device), parity.utc)
    for evaluation in runs.evaluations:
        for figure in _of_evaluation(evaluation):
            yield from _record(manifest, figure, _runner(evaluation.device), evaluation.utc)


def _record(manifest: Manifest, figure: _Figure, runner: Record, utc: str) -> Iterator[Record]:
    values = [value for value in figure.values if math.isfinite(value)]
    if not values:
        return
    plan = manifest.plan
    build = {"plan_id": manifest.plan_id, "target": plan.target, "utc": utc}
    yield {
        "benchmark": {
            "name": "mobilepack",
            "mode": "inference",
            "dtype": plan.recipe.linear_text,
            "extra_info": build,
        },
        "model": {
            "name": _model_name(plan.model.source),
            "type": plan.model.family,
            "backend": plan.backend,
            "extra_info": {"parameters": str(manifest.parameters)},
        },
        "metric": {
            "name": figure.name,
            "benchmark_values": values,
            "target_value": figure.target if math.isfinite(figure.target) else 0.0,
            "extra_info": dict(figure.extra),
        },
        "runners": [runner],
    }


def _model_name(source: str) -> str:
    """Return a hub id as it is, of a folder its last part: others have it elsewhere."""
    return PurePath(source).name if PurePath(source).is_absolute() else source


def _runner(device: str, kind: str = "") -> Record:
    return {"name": device, "type": kind}


def _runner_of_bench(bench: Bench) -> Record:
    environment = bench.environment
    runner = _runner(bench.device, environment.kind) | {"cpu_info": environment.cpu}
    extra = {**environment.runtime, **environment.conditions}
    memory = environment.conditions.get("memory_bytes", "")
    if memory.isascii() and memory.isdigit():
        runner["total_mem_in_gb"] = round(int(memory) / 1e9, 1)
    return runner | {"extra_info": extra}


def _of_bench(bench: Bench) -> Iterator[_Figure]:
    for test in bench.tests:
        yield from _of_test(test)
    whole = {"representative": str(bench.representative).lower()}
    yield _Figure("load_ms", bench.load_ms, extra=whole)
    yield _Figure("cached_load_ms", bench.cached_load_ms, extra=whole)
    yield _Figure("loaded_bytes", [bench.loaded_bytes], extra=whole)
    yield _Figure("peak_over_base_bytes", [bench.peak_over_base_bytes], extra=whole)
    yield _Figure("program_bytes", [bench.program_bytes], extra=whole)


def _of_test(test: BenchTest) -> Iterator[_Figure]:
    extra = {"test": test.test, "trust": test.trust, "trust_reason": test.trust_reason}
    yield _Figure("token_per_sec", test.samples_ts, extra=extra)
    if test.ttft_ms is not None:
        yield _Figure("ttft_ms", [ns / 1e6 for ns in test.prefill_ns], extra=extra)
    steps = [ns / 1e6 for row in test.decode_ns for ns in row]
    yield _Figure("decode_token_ms", steps, extra=extra)
    if test.instructions_per_token is not None:
        yield _Figure("instructions_per_token", [test.instructions_per_token], extra=extra)


def _of_parity(parity: Parity) -> Iterator[_Figure]:
    for row in parity.rows:
        extra = {"rung": row.rung, "against": row.against or "", "check": row.check}
        for metric in row.metrics:
            told = {**extra, "status": row.status, "better": metric.better}
            limit = 0.0 if metric.limit is None else metric.limit
            yield _Figure(metric.name, [metric.value], limit, told)


def _of_evaluation(evaluation: Evaluation) -> Iterator[_Figure]:
    for task in evaluation.tasks:
        extra = {"task": task.task, "samples": str(task.samples)}
        extra["num_fewshot"] = str(task.num_fewshot)
        for metric in task.metrics:
            told = {**extra, "filter": metric.filter}
            if metric.stderr is not None:
                told["stderr"] = repr(metric.stderr)
            yield _Figure(metric.name, [metric.value], extra=told)
