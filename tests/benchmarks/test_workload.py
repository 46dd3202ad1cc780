"""The child's side: what is timed, how often, and at which positions."""

from __future__ import annotations

from benchmarks.workload import Job, measure, random_tokens


class _Recorder:
    """An engine that only writes down what it was asked."""

    def __init__(self) -> None:
        self.resets = 0
        self.steps: list[tuple[int, int]] = []  # (number of tokens, position)

    def versions(self) -> dict[str, str]:
        return {"recorder": "1"}

    def load(self, job: Job) -> None:
        self.job = job

    def reset(self) -> None:
        self.resets += 1

    def step(self, tokens: list[int], position: int) -> None:
        self.steps.append((len(tokens), position))


_JOB = Job(program="x", prefill_lengths=(4,), prefill_repetitions=2, long_prompt=6, decode_steps=3)


def test_work_is_one_eval_then_prefills_then_two_decode_tests() -> None:
    engine = _Recorder()
    measure(engine, _JOB)
    prefills = [(4, 0)] * 3  # one warm-up, two kept
    short = [(8, 0), (1, 8), (1, 9), (1, 10)]
    long = [(6, 0), (1, 6), (1, 7), (1, 8)]
    assert engine.steps == [(1, 0), *prefills, *short, *long]


def test_only_kept_repetitions_are_reported() -> None:
    samples = measure(_Recorder(), _JOB)
    assert {length: len(times) for length, times in samples.prefill_ns.items()} == {4: 2}
    assert len(samples.decode_short_ns) == len(samples.decode_long_ns) == 3
    assert samples.versions == {"recorder": "1"}


def test_a_job_survives_the_command_line() -> None:
    assert Job.from_json(_JOB.to_json()) == _JOB


def test_all_engines_get_the_same_tokens() -> None:
    assert random_tokens(100) == random_tokens(1000)[:100]
