"""The record of a bench: the rows, their statistics and verdicts, the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mobilepack.contract.bench import Bench, BenchTest, Protocol, Statistics
from mobilepack.contract.manifest import Recipe
from mobilepack.contract.package import Package
from mobilepack.contract.run_plan import RunPlan, Time
from mobilepack.contract.run_result import Environment, RunResult, Timing
from mobilepack.errors import RunFailedError
from mobilepack.metrics.latency import summarise, tok_per_s, trust
from mobilepack.metrics.memory import loaded_bytes, peak_over_base_bytes

_CLOCK = (
    "calls of the program: from the token ids to the logits on the CPU;"
    " tokenisation, sampling and loading are outside"
)
_MEMORY = "one round of each test, at most 8 generated tokens, in a process of its own"


def record_bench(
    package: Package,
    plan: RunPlan,
    timed: RunResult,
    memory: RunResult,
    *,
    device: str,
    utc: str,
) -> Bench:
    """Return the record of what was timed, with memory from a pass of its own.

    Raises:
        RunFailedError: A test of the plan brought back no timing.
    """
    manifest = package.manifest
    items = [item for item in plan.items if isinstance(item, Time)]
    by_name = {timing.item: timing for timing in timed.timings}
    lacking = [item.name for item in items if item.name not in by_name]
    if lacking:
        raise RunFailedError(
            "incomplete-run",
            "the run brought back no timing for some tests",
            why=", ".join(lacking),
            next="run it again; if it stays so, report the harness",
        )
    return Bench(
        plan_id=manifest.plan_id,
        target=manifest.plan.target,
        backend=manifest.plan.backend,
        model=manifest.plan.model.name,
        recipe=recipe_text(manifest.plan.recipe),
        parameters=manifest.parameters,
        program_bytes=package.program_bytes,
        device=device,
        utc=utc,
        representative=timed.environment.representative,
        protocol=_protocol(items[0], plan, timed),
        load_ms=(timed.load_ns / 1e6, memory.load_ns / 1e6),
        memory=memory.memory,
        loaded_bytes=loaded_bytes(memory.memory),
        peak_over_base_bytes=peak_over_base_bytes(memory.memory),
        tests=tuple(_test(item, by_name[item.name], timed.environment) for item in items),
        environment=timed.environment,
    )


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe in one line."""
    linear = f"{recipe.linear} g{recipe.group_size}" if recipe.group_size else recipe.linear
    return f"{linear}, embedding {recipe.embedding}, KV {recipe.kv_cache}"


def _protocol(item: Time, plan: RunPlan, timed: RunResult) -> Protocol:
    return Protocol(
        warmups=item.warmups,
        repetitions=item.repetitions,
        cooldown_s=item.cooldown_s,
        threads=timed.environment.threads,
        prefill_chunk=plan.prefill_chunk,
        clock=_CLOCK,
        memory=_MEMORY,
    )


def busy(conditions: Mapping[str, str]) -> str:
    """Return how we know that something else was running before us, empty if nothing tells.

    More runnable processes than cores over the last minute cannot be an earlier verb of ours,
    which keeps at most as many threads busy as there are cores.
    """
    load = conditions.get("load_average_before", "").split(" ")[0]
    cores = conditions.get("cores", "")
    try:
        crowded = float(load) > int(cores) + 0.5
    except ValueError:
        return ""
    return f"the machine was busy: load average {load} on {cores} cores" if crowded else ""


def _test(item: Time, timing: Timing, environment: Environment) -> BenchTest:
    disturbance = busy(environment.conditions)
    prompts = timing.prefill_ns or (0,) * len(timing.decode_ns)
    rounds = tuple(
        prompt + sum(steps) for prompt, steps in zip(prompts, timing.decode_ns, strict=True)
    )
    speeds = tuple(tok_per_s(item.n_prompt + item.n_gen, ns) for ns in rounds)
    nanoseconds, speed = summarise(rounds), _statistics(speeds, disturbance)
    steps_ms = [ns / 1e6 for steps in timing.decode_ns for ns in steps]
    trusted, why = trust(
        [nanoseconds],
        representative=environment.representative,
        conditions=environment.conditions,
    )
    if disturbance and trusted == "VALID":
        trusted, why = "NOISY", disturbance
    return BenchTest(
        test=item.name,
        n_prompt=item.n_prompt,
        n_gen=item.n_gen,
        n_depth=item.n_depth,
        avg_ns=nanoseconds.mean,
        stddev_ns=nanoseconds.sd,
        avg_ts=speed.mean,
        stddev_ts=speed.sd,
        samples_ns=rounds,
        samples_ts=speeds,
        round_tok_per_s=speed,
        ttft_ms=_statistics([ns / 1e6 for ns in timing.prefill_ns], disturbance)
        if item.n_prompt
        else None,
        decode_token_ms=_statistics(steps_ms, disturbance) if steps_ms else None,
        prefill_ns=timing.prefill_ns,
        decode_ns=timing.decode_ns,
        instructions_per_token=_instructions(item, timing),
        trust=trusted,
        trust_reason=why,
    )


def _instructions(item: Time, timing: Timing) -> float | None:
    """Return the instructions of the last round per token, the first of which may fill caches."""
    if not timing.decode_instructions:
        return None
    total = sum(timing.prefill_instructions[-1:]) + sum(timing.decode_instructions[-1])
    return total / (item.n_prompt + item.n_gen)


def _statistics(values: Sequence[float], disturbance: str) -> Statistics:
    found = summarise(values)
    return Statistics(
        samples=found.samples,
        mean=found.mean,
        sd=found.sd,
        median=found.median,
        p90=found.p90,
        low=found.low,
        high=found.high,
        minimum=found.minimum,
        maximum=found.maximum,
        verdict="noisy" if disturbance else found.verdict,
        reason="; ".join(part for part in (disturbance, found.reason) if part),
    )
