"""Run the same work through any engine and print raw samples; the child's side.

Every engine's child script calls `run_child` with an engine of its own. Only the
standard library is used here, because it runs in every peer's environment.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

_SEED = 0
_FIRST_PLAIN_TOKEN = 300  # special tokens and bytes lie below in most vocabularies
_LOWEST_TOP = 32000  # the smallest vocabulary here; the same ids then suit every shape
_PROBE_ITERATIONS = 2_000_000  # about 50 ms


@dataclass(frozen=True, slots=True)
class Job:
    """Say what one child process does. Lengths are in tokens.

    Attributes:
        program: Path of the file or folder that the engine loads.
        threads: CPU threads the engine may use.
        context: Length of the KV cache.
        prefill_lengths: Prompts timed whole, each `prefill_repetitions` times.
        short_prompt: Prompt before the first decode test; its time is not kept.
        long_prompt: Prompt before the second decode test.
        decode_steps: Steps timed one by one in each decode test.
        flash_attention: Passed on to engines that have such a switch.
    """

    program: str
    threads: int = 2
    context: int = 1024
    prefill_lengths: tuple[int, ...] = (128, 512)
    prefill_repetitions: int = 5
    short_prompt: int = 8
    long_prompt: int = 512
    decode_steps: int = 64
    flash_attention: bool = True

    @staticmethod
    def from_json(text: str) -> Job:
        """Decode what `to_json` encoded."""
        values = json.loads(text)
        values["prefill_lengths"] = tuple(values["prefill_lengths"])
        return Job(**values)

    def to_json(self) -> str:
        """Encode for the child's command line."""
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Samples:
    """Hold everything one child measured; raw, in the order it happened.

    Attributes:
        load_ns: From the start of loading to an engine that accepts work.
        first_eval_ns: One token right after loading; engines defer work to it.
        prefill_ns: Length in tokens to the time of each repetition.
        decode_short_ns: Each step after the short prompt.
        decode_long_ns: Each step after the long prompt.
        memory_bytes: Resident memory by moment ("base", "loaded", "end", "peak") and,
            at the end, split into "end_anonymous" and "end_file".
        probe_ns: A fixed loop of Python before and after; when it takes longer than in
            other rounds, the processor was slower (a busy host shows nowhere else).
        versions: Versions the engine reports, and its processor features.
    """

    load_ns: int = 0
    first_eval_ns: int = 0
    prefill_ns: dict[int, list[int]] = field(default_factory=dict)
    decode_short_ns: list[int] = field(default_factory=list)
    decode_long_ns: list[int] = field(default_factory=list)
    memory_bytes: dict[str, int] = field(default_factory=dict)
    probe_ns: list[int] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """What a runtime must offer to be measured."""

    def versions(self) -> dict[str, str]:
        """Name the versions in use."""

    def load(self, job: Job) -> None:
        """Make the program ready to run."""

    def reset(self) -> None:
        """Forget every token."""

    def step(self, tokens: list[int], position: int) -> None:
        """Feed tokens at a position (from 0) and wait for the last one's logits."""


def measure(engine: Engine, job: Job) -> Samples:
    """Load the program and time it as `Job` says."""
    samples = Samples()
    tokens = random_tokens(job.context)
    samples.probe_ns.append(_timed(_probe))
    samples.memory_bytes["base"] = _memory("VmRSS")
    samples.load_ns = _timed(lambda: engine.load(job))
    samples.first_eval_ns = _timed(lambda: engine.step(tokens[:1], 0))
    samples.memory_bytes["loaded"] = _memory("VmRSS")
    for length in job.prefill_lengths:
        samples.prefill_ns[length] = _prefill(engine, tokens[:length], job.prefill_repetitions)
    samples.decode_short_ns = _decode(engine, tokens, job.short_prompt, job.decode_steps)
    samples.decode_long_ns = _decode(engine, tokens, job.long_prompt, job.decode_steps)
    samples.memory_bytes |= {
        "end": _memory("VmRSS"),
        "peak": _memory("VmHWM"),
        "end_anonymous": _memory("RssAnon"),
        "end_file": _memory("RssFile"),
    }
    samples.probe_ns.append(_timed(_probe))
    samples.versions = engine.versions()
    return samples


def random_tokens(count: int) -> list[int]:
    """Return plain token ids, the same for every engine and shape."""
    source = random.Random(_SEED)
    return [source.randrange(_FIRST_PLAIN_TOKEN, _LOWEST_TOP) for _ in range(count)]


def run_child(engine: Engine) -> None:
    """Read a job from the command line, measure, print one JSON document."""
    samples = measure(engine, Job.from_json(sys.argv[1]))
    print(json.dumps(asdict(samples)))


def _prefill(engine: Engine, tokens: list[int], repetitions: int) -> list[int]:
    engine.reset()
    engine.step(tokens, 0)  # warm-up, not kept
    times = []
    for _ in range(repetitions):
        engine.reset()
        times.append(_timed(lambda: engine.step(tokens, 0)))
    return times


def _decode(engine: Engine, tokens: list[int], prompt: int, steps: int) -> list[int]:
    engine.reset()
    engine.step(tokens[:prompt], 0)
    return [
        _timed(lambda at=at: engine.step(tokens[at : at + 1], at))  # type: ignore[misc]
        for at in range(prompt, prompt + steps)
    ]


def _probe() -> None:
    for _ in range(_PROBE_ITERATIONS):
        pass


def _timed(action: Callable[[], None]) -> int:
    start = time.perf_counter_ns()
    action()
    return time.perf_counter_ns() - start


def _memory(field_name: str) -> int:
    """Read a field of /proc/self/status, which the kernel gives in kB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field_name + ":"):
            return int(line.split()[1]) * 1024
    return 0
