"""bench.json: latency and memory of one package on one device, with protocol and raw samples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract
from mobilepack.contract.run_result import Environment, Memory


class Protocol(Contract):
    """How the numbers were taken.

    Attributes:
        clock: What is inside the clock.
        memory: How memory was taken.
    """

    warmups: int
    repetitions: int
    cooldown_s: float
    threads: int
    prefill_chunk: int
    clock: str
    memory: str


class Statistics(Contract):
    """Summary of samples; `low` and `high` bound the median with 95 % confidence (bootstrap).

    Attributes:
        sd: Sample standard deviation (n - 1), 0 for one sample.
        p90: 90th percentile of the value: of times the slow end, of speeds the fast one.
        verdict: `steady`, `noisy` (spread too wide, or the machine was busy with something else),
            `drifting` (second half differs from the first), or `too few` samples to say.
    """

    samples: int
    mean: float
    sd: float
    median: float
    p90: float
    low: float
    high: float
    minimum: float
    maximum: float
    verdict: Literal["steady", "noisy", "drifting", "too few"]
    reason: str


class BenchTest(Contract):
    """One test in llama-bench's terms; keys that llama-bench has keep its names.

    Attributes:
        test: `pp512`, `tg128`, `pp512+tg128`, with ` @ d256` behind it at a depth.
        samples_ns: One whole round per repetition: prompt, then generated tokens.
        samples_ts: `(n_prompt + n_gen)` tokens per second of each round.
        avg_ts: Mean of `samples_ts`; `stddev_ts` is their sample standard deviation.
        ttft_ms: Start of the prompt to its last logits, milliseconds, load excluded; None without
            a prompt.
        decode_token_ms: Each generated token, milliseconds; None without generation.
        round_tok_per_s: `samples_ts` in summary.
        prefill_ns: Raw: prompt of each repetition.
        decode_ns: Raw: each generated token of each repetition.
        instructions_per_token: Of the last round, over prompt and generated tokens; None where
            nobody counts instructions. With one thread two runs of the same program differ by
            less than 0.1 %, so it shows a regression that no timing of an emulator could.
        trust: Whether its times can be believed; only VALID ones can fail a gate.
        trust_reason: Why.
    """

    test: str
    n_prompt: int
    n_gen: int
    n_depth: int
    avg_ns: float
    stddev_ns: float
    avg_ts: float
    stddev_ts: float
    samples_ns: tuple[int, ...]
    samples_ts: tuple[float, ...]
    round_tok_per_s: Statistics
    ttft_ms: Statistics | None
    decode_token_ms: Statistics | None
    prefill_ns: tuple[int, ...]
    decode_ns: tuple[tuple[int, ...], ...]
    instructions_per_token: float | None = None
    trust: Literal["VALID", "NOISY", "THROTTLED", "NOT REPRESENTATIVE"] = "NOT REPRESENTATIVE"
    trust_reason: str = ""


class Bench(Contract):
    """Everything `mobilepack bench` measured.

    Attributes:
        representative: Whether the numbers may stand for a user's phone; never true on a host.
        load_ms: Opening the program and preparing its method, one sample per process (timed pass,
            memory pass).
        cached_load_ms: The same where what an earlier load made was kept: XNNPACK's packed weights,
            or Core ML's specialised program; one sample per process, empty where nothing is kept.
        memory: From a process of its own.
        loaded_bytes: `after_load - before_load`.
        peak_over_base_bytes: `peak - before_load`.
    """

    schema_: Literal["mobilepack/bench/1"] = Field("mobilepack/bench/1", alias="schema")
    plan_id: str
    target: str
    backend: str
    model: str
    recipe: str
    parameters: int
    program_bytes: int
    device: str
    utc: str
    representative: bool
    protocol: Protocol
    load_ms: tuple[float, ...]
    cached_load_ms: tuple[float, ...] = ()
    memory: Memory
    loaded_bytes: int
    peak_over_base_bytes: int
    tests: tuple[BenchTest, ...]
    environment: Environment
