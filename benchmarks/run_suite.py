"""Measure prefill, decode, load and memory of every peer in alternated rounds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.build_suite import StepFailedError, ensure_built
from benchmarks.environments import EnvironmentFailedError, ensure
from benchmarks.host import load_average, wait_until_quiet
from benchmarks.peers.base import Peer
from benchmarks.process import run_measured
from benchmarks.record import ChildRun, PeerSummary, RunResult
from benchmarks.settings import Settings
from benchmarks.shapes import Shape
from benchmarks.summary import HIGHER_IS_BETTER, Ratio, ratio, round_metrics
from benchmarks.workload import Job


@dataclass(frozen=True, slots=True)
class Runner:
    """Hold one setting of one peer, ready to be started."""

    peer: Peer
    python: Path
    program: Path
    flash_attention: bool


def measure_runs(settings: Settings, shape: Shape) -> RunResult:
    """Run all peers round by round: A B C, A B C, ..., each in a fresh process."""
    runners: list[Runner] = []
    not_run: dict[str, str] = {}
    for peer in settings.peers:
        try:
            runners += _runners(settings, peer, shape)
        except (EnvironmentFailedError, StepFailedError) as error:
            not_run[peer.name] = str(error)
    for runner in runners:
        _read_into_page_cache(runner.program)
        _warm_up(runner)
    children = [
        _run_child(settings, runner, number)
        for number in range(1, settings.rounds + 1)
        for runner in runners
    ]
    return summarise(shape.name, settings, children, not_run)


def summarise(
    shape: str, settings: Settings, children: Sequence[ChildRun], not_run: dict[str, str]
) -> RunResult:
    """Reduce children to per-round bests, medians and the subject's ratios."""
    names = list(dict.fromkeys(child.peer for child in children))
    candidates = (_summary(name, [c for c in children if c.peer == name]) for name in names)
    summaries = tuple(summary for summary in candidates if summary.rounds)
    subject = settings.peers[0].name
    by_name = {summary.peer: summary for summary in summaries}
    ratios = {
        name: _ratios(by_name[subject], by_name[name])
        for name in by_name
        if subject in by_name and name != subject
    }
    return RunResult(
        shape=shape,
        subject=subject,
        threads=settings.threads,
        rounds=tuple(children),
        summaries=summaries,
        ratios=ratios,
        not_run=not_run,
    )


def _runners(settings: Settings, peer: Peer, shape: Shape) -> list[Runner]:
    python = ensure(peer.environment)
    program = ensure_built(settings, peer, shape)
    return [Runner(peer, python, program, choice) for choice in peer.flash_attention_choices]


def _run_child(settings: Settings, runner: Runner, number: int) -> ChildRun:
    job = Job(
        program=str(runner.program),
        threads=settings.threads,
        context=settings.context,
        flash_attention=runner.flash_attention,
    )
    waited_s = wait_until_quiet(settings.quiet_wait_s)
    load = load_average()
    print(f"  round {number}: {runner.peer.name}", file=sys.stderr)
    done = run_measured(
        (str(runner.python), "-m", runner.peer.child, job.to_json()),
        limit_s=settings.run_limit_s,
        environment=runner.peer.child_variables,
        priority=settings.priority,
    )
    ok = done.returncode == 0
    samples = json.loads(done.stdout.splitlines()[-1]) if ok else None
    return ChildRun(
        peer=runner.peer.name,
        flash_attention=runner.flash_attention,
        round=number,
        status="done" if ok else "failed",
        why="" if ok else done.explain_failure(),
        samples=samples,
        metrics=round_metrics(samples) if samples else {},
        waited_s=waited_s,
        wall_s=done.wall_s,
        other_cpu_share=done.other_cpu_share,
        load_average=load,
    )


def _summary(name: str, children: Sequence[ChildRun]) -> PeerSummary:
    """Reduce one peer's children, keeping the rounds in which all its settings finished."""
    failed = {child.round for child in children if child.status != "done"}
    rounds = tuple(sorted({child.round for child in children} - failed))
    per_round: dict[str, tuple[float, ...]] = {}
    best_setting: dict[str, bool] = {}
    for metric in HIGHER_IS_BETTER if rounds else ():
        best = [_best([c for c in children if c.round == number], metric) for number in rounds]
        per_round[metric] = tuple(child.metrics[metric] for child in best)
        wins = Counter(child.flash_attention for child in best)
        best_setting[metric] = wins.most_common(1)[0][0]
    medians = {metric: median(values) for metric, values in per_round.items()}
    return PeerSummary(name, rounds, medians, per_round, best_setting)


def _best(children: Sequence[ChildRun], metric: str) -> ChildRun:
    pick = max if HIGHER_IS_BETTER[metric] else min
    return pick(children, key=lambda child: child.metrics[metric])


def _ratios(subject: PeerSummary, peer: PeerSummary) -> dict[str, Ratio]:
    """Compare over the rounds that both finished; empty where there are none."""
    common = [number for number in subject.rounds if number in peer.rounds]
    if not common:
        return {}
    return {
        metric: ratio(_values(subject, metric, common), _values(peer, metric, common))
        for metric in subject.per_round
    }


def _values(summary: PeerSummary, metric: str, rounds: Sequence[int]) -> list[float]:
    by_round = dict(zip(summary.rounds, summary.per_round[metric], strict=True))
    return [by_round[number] for number in rounds]


def _warm_up(runner: Runner) -> None:
    """Let a peer make what it keeps between loads."""
    if runner.peer.warm_up:
        command = (str(runner.python), *runner.peer.warm_up, str(runner.program))
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _read_into_page_cache(program: Path) -> None:
    """Read every byte once, so that no engine pays for a cold disk."""
    paths = [program] if program.is_file() else [p for p in program.rglob("*") if p.is_file()]
    for path in paths:
        with path.open("rb") as stream:
            while stream.read(1 << 24):
                pass
