"""Results of runs for the tests of the report, as `verify`, `bench` and `eval` would write them."""

from __future__ import annotations

from mobilepack.contract.bench import Bench, BenchTest, Protocol, Statistics
from mobilepack.contract.evaluation import Evaluation, TaskMetric, TaskResult
from mobilepack.contract.parity import Level, Loss, Measured, Parity, ParityRow, Share
from mobilepack.contract.run_result import Environment, Memory

UTC = "2026-11-21T05:08:50Z"


def a_parity(plan_id: str, text: str = "") -> Parity:
    """Return a ladder with a row of each status; `text` goes into every field that takes any."""
    measured = Measured(name=f"kl_max{text}", value=0.5, better="lower", limit=0.01, reason=text)
    quantised = Measured(name="rms_over_std", value=0.10, better="lower")
    program = Measured(name="rms_over_std", value=0.02, better="lower", limit=0.03, reason=text)
    rows = (
        ParityRow(
            rung="eager quantised",
            against="eager fp32",
            check=f"what quantisation costs{text}",
            compared=569,
            metrics=(quantised,),
            status="reported",
        ),
        ParityRow(
            rung="program on host",
            against="eager quantised",
            check=f"longest: prefill of 512{text}",
            compared=1,
            metrics=(program,),
            status="passed",
        ),
        ParityRow(
            rung="program on host",
            against="eager quantised",
            check=f"end{text}",
            compared=65,
            metrics=(program, measured),
            status="failed",
            reason=text,
        ),
        ParityRow(
            rung="program on device",
            against=None,
            check="the whole ladder",
            compared=0,
            metrics=(),
            status="not run",
            reason=f"no device was asked for{text}",
        ),
    )
    lost = Loss(against="eager fp32", metrics=(quantised, program, measured))
    levels = (
        Level(rung="eager fp32", runtime=f"PyTorch{text}", status="reported", compared=65),
        Level(
            rung="program on host",
            where=f"host{text}",
            runtime=f"XNNPACK{text}",
            status="failed",
            compared=65,
            losses=(lost, lost),
            greedy=Share(count=7, of=24),
            task=Share(count=6, of=8),
            reason=f"kl_max{text}",
        ),
        Level(rung="program on device", status="not run", reason=f"no device{text}"),
    )
    return Parity(
        levels=levels,
        plan_id=plan_id,
        target=f"xnnpack{text}",
        recipe=f"8da4w group 32{text}",
        device=f"host{text}",
        utc=f"{UTC}{text}",
        passed=False,
        culprit="program on host",
        floor=None,
        rows=rows,
    )


def a_bench(plan_id: str, text: str = "") -> Bench:
    """Return two tests of which the second is noisy; `text` as in `a_parity`."""
    return Bench(
        plan_id=plan_id,
        target=f"xnnpack{text}",
        backend=f"xnnpack{text}",
        model=f"toy{text}",
        recipe=f"8da4w g32, embedding 4w, KV fp16{text}",
        parameters=1000,
        program_bytes=11,
        device=f"host{text}",
        utc=f"{UTC}{text}",
        representative=True,
        protocol=Protocol(
            warmups=3,
            repetitions=5,
            cooldown_s=0.0,
            threads=2,
            prefill_chunk=16,
            clock=f"calls of the program{text}",
            memory=f"a process of its own{text}",
        ),
        load_ms=(131.5, 106.25),
        memory=Memory(before_load_bytes=1000, after_load_bytes=3000, peak_bytes=5000),
        loaded_bytes=2000,
        peak_over_base_bytes=4000,
        tests=(a_test(8, 0, "VALID", text), a_test(0, 4, "NOISY", text)),
        environment=Environment(
            kind="device",
            representative=True,
            name=f"Phone{text}",
            cpu=f"Oryon{text}",
            threads=2,
            runtime={f"executorch{text}": f"1.5.1{text}"},
            conditions={
                "thermal_status_before": "none",
                "thermal_status_after": f"light{text}",
                "memory_bytes": "8000000000",
                f"governor{text}": f"schedutil{text}",
            },
        ),
    )


def a_test(n_prompt: int, n_gen: int, trust: str, text: str = "") -> BenchTest:
    """Return a test of five repetitions, 10 ms per prompt and 1 to 5 ms per generated token."""
    prefill = (10_000_000,) * 5 if n_prompt else ()
    decode = tuple((1_000_000 * step,) * n_gen for step in range(1, 6))
    rounds = tuple(a + sum(b) for a, b in zip(prefill or (0,) * 5, decode, strict=True))
    speeds = tuple((n_prompt + n_gen) * 1e9 / ns for ns in rounds)
    name = "+".join([f"pp{n_prompt}"] * bool(n_prompt) + [f"tg{n_gen}"] * bool(n_gen))
    statistics = _statistics(speeds, text)
    return BenchTest.model_validate(
        {
            "test": f"{name}{text}",
            "n_prompt": n_prompt,
            "n_gen": n_gen,
            "n_depth": 0,
            "avg_ns": sum(rounds) / 5,
            "stddev_ns": 0.25,
            "avg_ts": sum(speeds) / 5,
            "stddev_ts": 0.5,
            "samples_ns": rounds,
            "samples_ts": speeds,
            "round_tok_per_s": statistics,
            "ttft_ms": _statistics([ns / 1e6 for ns in prefill], text) if prefill else None,
            "decode_token_ms": _statistics([1.0, 2.0, 3.0, 4.0, 5.0], text) if n_gen else None,
            "prefill_ns": prefill,
            "decode_ns": decode,
            "instructions_per_token": 123456.0,
            "trust": trust,
            "trust_reason": f"spread 1.0%{text}",
        }
    )


def _statistics(values: tuple[float, ...] | list[float], text: str) -> Statistics:
    ordered = sorted(values)
    return Statistics(
        samples=len(ordered),
        mean=sum(ordered) / len(ordered),
        sd=0.5,
        median=ordered[len(ordered) // 2],
        p90=ordered[-1],
        low=ordered[0],
        high=ordered[-1],
        minimum=ordered[0],
        maximum=ordered[-1],
        verdict="steady",
        reason=f"spread 1.0%{text}",
    )


def an_evaluation(plan_id: str, text: str = "") -> Evaluation:
    """Return one task that ran and one that did not; `text` as in `a_parity`."""
    metric = TaskMetric(name=f"exact_match{text}", filter=f"none{text}", value=0.75, stderr=0.025)
    return Evaluation(
        plan_id=plan_id,
        target=f"xnnpack{text}",
        model=f"toy{text}",
        recipe=f"8da4w g32{text}",
        device=f"host{text}",
        utc=f"{UTC}{text}",
        asked=(f"pocket{text}",),
        limit=None,
        chat_template=False,
        max_seq_len=64,
        fed_tokens=100,
        wall_s=2.5,
        versions={f"mobilepack{text}": f"0.1.0{text}"},
        tasks=(
            TaskResult(
                task=f"pocket{text}",
                status="ran",
                samples=220,
                version=f"1{text}",
                metrics=(metric,),
            ),
            TaskResult(task=f"arc{text}", status="not run", reason=f"no lm-eval{text}"),
        ),
    )
