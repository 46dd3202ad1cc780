"""Measure what it costs each peer to turn a checkpoint into what it runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.environments import EnvironmentFailedError, ensure
from benchmarks.host import load_average, wait_until_quiet
from benchmarks.peers.base import BuildRequest, BuildStep, Peer
from benchmarks.process import Measured, run_measured
from benchmarks.record import BuildResult, StepCost
from benchmarks.settings import Settings
from benchmarks.shapes import Shape

_GENERATE_LIMIT_S = 1800.0


class StepFailedError(Exception):
    """A command of a build failed; the message says which and why."""


def measure_build(settings: Settings, peer: Peer, shape: Shape) -> BuildResult:
    """Build once from nothing and record the cost; a failure is a result too."""
    reason = peer.skip(shape)
    if reason:
        return BuildResult(shape.name, peer.name, "not run", reason)
    request = settings.request(shape, peer)
    shutil.rmtree(request.output, ignore_errors=True)
    request.output.mkdir(parents=True)
    load = load_average()
    try:
        _make_checkpoint(request)
        python = ensure(peer.environment)
        steps = tuple(_run_step(settings, step) for step in peer.plan(python, request))
    except (EnvironmentFailedError, StepFailedError) as error:
        return BuildResult(shape.name, peer.name, "failed", str(error), load_average=load)
    counted = [step for step in steps if step.counted]
    return BuildResult(
        shape=shape.name,
        peer=peer.name,
        status="done",
        steps=steps,
        wall_s=sum(step.wall_s for step in counted),
        cpu_s=sum(step.cpu_user_s + step.cpu_system_s for step in counted),
        peak_rss_bytes=max(step.peak_rss_bytes for step in counted),
        peak_anonymous_bytes=max(step.peak_anonymous_bytes for step in counted),
        file_bytes=sum(path.stat().st_size for path in peer.weighed(request.output)),
        parameters=shape.parameter_count(),
        load_average=load,
    )


def ensure_built(settings: Settings, peer: Peer, shape: Shape) -> Path:
    """Return what a peer's engine loads, building it first where it is missing or stale.

    Raises:
        StepFailedError: It could not be built; the message says why.
    """
    request = settings.request(shape, peer)
    if not (peer.keep and peer.program(request.output).exists()):
        result = measure_build(settings, peer, shape)
        if result.status != "done":
            raise StepFailedError(result.why)
    return peer.program(request.output)


def _run_step(settings: Settings, step: BuildStep) -> StepCost:
    wait_until_quiet(settings.quiet_wait_s)
    print(f"  {step.label}", file=sys.stderr)
    done = run_measured(
        step.command,
        limit_s=settings.build_limit_s,
        environment=step.variables,
        sample_memory=True,
        priority=settings.priority,
    )
    if done.returncode != 0:
        raise StepFailedError(f"{step.label}: {done.explain_failure()}")
    return _cost(step, done)


def _cost(step: BuildStep, done: Measured) -> StepCost:
    return StepCost(
        label=step.label,
        command=step.command,
        counted=step.counted,
        wall_s=done.wall_s,
        cpu_user_s=done.cpu_user_s,
        cpu_system_s=done.cpu_system_s,
        peak_rss_bytes=done.peak_rss_bytes,
        peak_anonymous_bytes=done.peak_anonymous_bytes or 0,
        other_cpu_share=done.other_cpu_share,
    )


def _make_checkpoint(request: BuildRequest) -> None:
    """Generate weights in a child: numpy would raise this process's own peak memory.

    A child's `ru_maxrss` starts at its parent's size at the fork: getrusage(2).
    """
    if (request.checkpoint / "config.json").exists():
        return
    module = (sys.executable, "-m", "benchmarks.checkpoint")
    command = (*module, request.shape.name, "-o", str(request.checkpoint.parent))
    done = run_measured(command, limit_s=_GENERATE_LIMIT_S)
    if done.returncode != 0:
        raise StepFailedError(f"generating {request.shape.name}: {done.explain_failure()}")
