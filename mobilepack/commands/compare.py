"""compare: what changed from one package to another, and whether a gate lets it pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.bench import Bench, BenchTest
from mobilepack.contract.evaluation import Evaluation
from mobilepack.contract.gate import Gate, Judged
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import open_package
from mobilepack.contract.parity import Parity
from mobilepack.errors import CheckFailedError
from mobilepack.metrics.changes import Better, Change, Fact, changes
from mobilepack.metrics.gating import judge
from mobilepack.report.runs import read_runs

_OVERALL = "PPL and distance to the top over all checks"
_PARITY: dict[str, Better] = {
    "ppl_ratio": "lower",
    "kl_mean": "lower",
    "kl_max": "lower",
    "sqnr_db": "higher",
    "top1_agreement": "higher",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found.

    Attributes:
        before: The first package.
        after: The second; the same one when a gate has absolute rules only.
        judged: Outcomes of the gate, empty without one.
    """

    before: Path
    after: Path
    changes: tuple[Change, ...]
    judged: tuple[Judged, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no rule of the gate failed."""
        return all(one.outcome != "failed" for one in self.judged)

    def raise_if_failed(self) -> None:
        """Raise `CheckFailedError` (exit code 3) naming the rows that broke the gate."""
        failed = [one for one in self.judged if one.outcome == "failed"]
        if failed:
            raise CheckFailedError(
                "gate-failed",
                f"{len(failed)} of {len(self.judged)} rows break the gate",
                why="; ".join(f"{one.metric}: {one.why}" for one in failed[:5]),
                next="mend what changed, or change the rule on purpose",
            )


def compare(before: Path, after: Path, gate: Gate | None = None) -> Comparison:
    """Compare two packages and the newest runs of each device in them.

    Raises:
        MissingError: One is no package.
        UsageError: A package or a result file is damaged.
    """
    found = changes(tuple(facts(before)), tuple(facts(after)))
    judged = judge(gate, found) if gate else ()
    return Comparison(before, after, found, judged)


def facts(path: Path) -> Iterator[Fact]:
    """Yield every figure of a package and of its newest runs.

    Raises:
        MissingError: It is no package.
        UsageError: The package or a result file is damaged.
    """
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
