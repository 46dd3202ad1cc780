"""Every figure of a package, a run or a campaign, by names that two of them share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mobilepack.contract.bench import Bench, BenchTest
from mobilepack.contract.campaign import CELLS, Cell
from mobilepack.contract.evaluation import Evaluation
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import MANIFEST, open_package
from mobilepack.contract.parity import Parity
from mobilepack.metrics.changes import Better, Fact
from mobilepack.report.runs import BENCH, EVALUATION, PARITY, read_runs

_RESULTS = (PARITY, BENCH, EVALUATION)
_OVERALL = "PPL and distance to the top over all checks"
_PARITY: dict[str, Better] = {
    "ppl_ratio": "lower",
    "kl_mean": "lower",
    "kl_max": "lower",
    "sqnr_db": "higher",
    "top1_agreement": "higher",
}


def facts(path: Path) -> Iterator[Fact]:
    """Yield every figure of a package with its newest runs, of one run, or of a campaign.

    Raises:
        MissingError: It is none of these.
        UsageError: The package or a result file is damaged.
    """
    if (path / CELLS).is_dir():
        return _of_campaign(path / CELLS)
    if not (path / MANIFEST).is_file() and any((path / name).is_file() for name in _RESULTS):
        return _of_run(path)
    return _of_package(path)


def _of_campaign(folder: Path) -> Iterator[Fact]:
    for path in sorted(folder.glob("*.json")):
        cell = Cell.read(path)
        here = f"{cell.key.model}/{cell.key.recipe}"
        if cell.bench is None:
            yield Fact(f"{here}/bench/{cell.key.device}/measured", 0.0, "", "higher")
            continue
        yield Fact(f"{here}/size/program", cell.program_bytes, "bytes", "lower")
        for fact in _of_bench(cell.bench):
            yield replace(fact, name=f"{here}/{fact.name}")


def _of_run(folder: Path) -> Iterator[Fact]:
    if (folder / PARITY).is_file():
        yield from _of_parity(Parity.read(folder / PARITY))
    if (folder / BENCH).is_file():
        yield from _of_bench(Bench.read(folder / BENCH))
    if (folder / EVALUATION).is_file():
        yield from _of_evaluation(Evaluation.read(folder / EVALUATION))


def _of_package(path: Path) -> Iterator[Fact]:
    package = open_package(path)
    yield Fact("size/program", package.program_bytes, "bytes", "lower")
    yield from _of_manifest(package.manifest)
    runs = read_runs(package.root, package.manifest).whole()
    for parity in runs.parity:
        yield from _of_parity(parity)
    for bench in runs.bench:
        yield from _of_bench(bench)
    for evaluation in runs.evaluations:
        yield from _of_evaluation(evaluation)


def _of_manifest(manifest: Manifest) -> Iterator[Fact]:
    placement = manifest.placement
    weights = placement.delegated_weight_bytes + placement.fallback_weight_bytes
    size = sum(entry.bytes for entry in manifest.files)
    yield Fact("size/package", size, "bytes", "lower")
    yield Fact("memory/parameters", manifest.memory.parameters_bytes, "bytes", "lower")
    yield Fact("memory/kv_cache", manifest.memory.kv_cache_bytes, "bytes", "lower")
    yield Fact("memory/activations", manifest.memory.activations_bytes, "bytes", "lower")
    yield Fact("weights/parameters", manifest.parameters)
    yield Fact("weights/quantised_share", manifest.quantised_share, "", "higher")
    if weights:
        share = placement.delegated_weight_bytes / weights
        yield Fact("placement/delegated_weight_share", share, "", "higher")


def _of_parity(parity: Parity) -> Iterator[Fact]:
    here = f"parity/{parity.device}"
    yield Fact(f"{here}/passed", float(parity.passed), "", "higher")
    for row in parity.rows:
        if row.check != _OVERALL:
            continue
        for metric in row.metrics:
            if metric.name in _PARITY:
                name = f"{here}/{row.rung}/{metric.name}"
                yield Fact(name, metric.value, "", _PARITY[metric.name])


def _of_bench(bench: Bench) -> Iterator[Fact]:
    here = f"bench/{bench.device}"
    for test in bench.tests:
        yield from _of_test(f"{here}/{test.test}", test)
    distrust = "" if bench.representative else "NOT REPRESENTATIVE: not a user's device"
    few = f"{len(bench.load_ms)} samples of the load" if len(bench.load_ms) < 5 else ""
    loads = sorted(bench.load_ms)
    middle = loads[len(loads) // 2]
    yield Fact(f"{here}/load_ms", middle, "ms", "lower", tuple(loads), distrust or few)
    yield Fact(f"{here}/peak_memory", bench.peak_over_base_bytes, "bytes", "lower")


def _of_test(here: str, test: BenchTest) -> Iterator[Fact]:
    distrust = "" if test.trust == "VALID" else f"{test.trust}: {test.trust_reason}"
    speed = test.round_tok_per_s.median
    yield Fact(f"{here}/tok_per_s", speed, "tok/s", "higher", test.samples_ts, distrust)
    if test.ttft_ms is not None:
        samples = tuple(ns / 1e6 for ns in test.prefill_ns)
        yield Fact(f"{here}/ttft_ms", test.ttft_ms.median, "ms", "lower", samples, distrust)
    if test.decode_token_ms is not None:
        steps = tuple(ns / 1e6 for round_ns in test.decode_ns for ns in round_ns)
        middle = test.decode_token_ms.median
        yield Fact(f"{here}/decode_token_ms", middle, "ms", "lower", steps, distrust)
    if test.instructions_per_token is not None:
        count = test.instructions_per_token
        yield Fact(f"{here}/instructions_per_token", count, "instructions", "lower")


def _of_evaluation(evaluation: Evaluation) -> Iterator[Fact]:
    for task in evaluation.tasks:
        for metric in task.metrics:
            better: Better = "higher" if metric.higher_is_better else "lower"
            yield Fact(f"task/{task.task}/{metric.name}", metric.value, "", better)
