"""`bench` speaks llama-bench's language and keeps every sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.bench import BenchOptions, bench, name_of_test
from mobilepack.commands.bench_record import busy
from mobilepack.contract.bench import Bench
from mobilepack.contract.run_plan import Time
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import UsageError
from mobilepack.harness.base import Progress
from mobilepack.testing import TICK_NS, FakeHarness, ToyModel
from tests.packages import VOCAB, toy_package

OPTIONS = BenchOptions(prompt_tokens=(8, 32), gen_tokens=(4, 0), depths=(0, 30), warmups=2)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return toy_package(tmp_path / "p")


def _bench(package: Path, options: BenchOptions = OPTIONS) -> tuple[Bench, FakeHarness]:
    harness = FakeHarness(ToyModel(VOCAB))
    return bench(package, options, harness=harness).bench, harness


def test_names_are_llama_benchs() -> None:
    assert name_of_test(512, 0, 0) == "pp512"
    assert name_of_test(0, 128, 512) == "tg128 @ d512"
    assert name_of_test(512, 128, 0) == "pp512+tg128"


def test_tests_are_every_depth_with_every_length_that_fits(package: Path) -> None:
    options = BenchOptions(prompt_tokens=(8, 40), gen_tokens=(4,), depths=(0, 30))
    result = bench(package, options, harness=FakeHarness())
    names = [test.test for test in result.bench.tests]
    assert names == ["pp8", "pp40", "tg4", "pp8 @ d30", "tg4 @ d30"]
    assert result.skipped == (("pp40 @ d30", "needs 70 positions of 64"),)


def test_raw_samples_and_their_summary_agree(package: Path) -> None:
    record, _ = _bench(package)
    pp8, tg4 = record.tests[0], record.tests[2]
    assert pp8.prefill_ns == (TICK_NS,) * 5
    assert pp8.samples_ns == pp8.prefill_ns
    assert pp8.avg_ts == pytest.approx(8 * 1e9 / TICK_NS)
    assert pp8.stddev_ns == 0
    assert pp8.ttft_ms is not None
    assert pp8.ttft_ms.median == TICK_NS / 1e6
    assert pp8.decode_token_ms is None
    assert tg4.decode_ns == ((TICK_NS,) * 4,) * 5
    assert tg4.samples_ns == (4 * TICK_NS,) * 5
    assert tg4.ttft_ms is None
    assert tg4.decode_token_ms is not None
    assert tg4.decode_token_ms.samples == 20
    assert tg4.round_tok_per_s.verdict == "steady"


def test_memory_comes_from_a_process_of_its_own(package: Path) -> None:
    record, harness = _bench(package)
    timed, memory = harness.ran
    assert all(i.repetitions == 5 and i.warmups == 2 for i in timed.items if isinstance(i, Time))
    assert all(i.repetitions == 1 and i.warmups == 0 for i in memory.items if isinstance(i, Time))
    assert len(record.load_ms) == 2
    assert (record.loaded_bytes, record.peak_over_base_bytes) == (2000, 4000)


class LoadsTwice(FakeHarness):
    """A harness that loads a program twice, as Core ML's does."""

    def run(self, *arguments: Any, **more: Any) -> RunResult:
        again = {"cached_load_ns": 1_500_000 * (len(self.ran) + 1)}
        return super().run(*arguments, **more).model_copy(update=again)


def test_a_second_load_is_kept_apart_from_the_first(package: Path) -> None:
    record = bench(package, OPTIONS, harness=LoadsTwice(ToyModel(VOCAB))).bench
    assert record.load_ms == (TICK_NS / 1e6, TICK_NS / 1e6)
    assert record.cached_load_ms == (1.5, 3.0)


def test_the_record_says_what_it_is(package: Path) -> None:
    seen: list[Progress] = []
    result = bench(package, OPTIONS, harness=FakeHarness(), on_progress=seen.append)
    record = Bench.read(result.folder / "bench.json")
    assert record == result.bench
    assert not record.representative
    assert record.model == "toy"
    assert record.recipe == "fp32, embedding fp32, KV fp32"
    assert record.protocol.warmups == 2
    assert record.protocol.repetitions == 5
    assert sorted(p.name for p in result.folder.iterdir()) == [
        "bench.json",
        "log.txt",
        "run_plan.json",
        "run_result.json",
    ]
    assert any(p.item == "memory, pp8" for p in seen)


def test_nothing_that_fits_is_an_error_with_the_way_out(package: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _bench(package, BenchOptions())
    assert "pp512 needs 512 positions of 64" in caught.value.why
    with pytest.raises(UsageError, match="all 0"):
        _bench(package, BenchOptions(prompt_tokens=(), gen_tokens=(0,)))


@pytest.mark.parametrize(
    ("load", "cores", "crowded"),
    [("1.90 1 1", "2", False), ("2.60 1 1", "2", True), ("unknown", "2", False), ("3", "", False)],
)
def test_a_busy_machine_is_said(load: str, cores: str, crowded: bool) -> None:
    found = busy({"load_average_before": load, "cores": cores})
    assert bool(found) == crowded
    assert not crowded or "2.60 on 2 cores" in found


def test_token_ids_stay_within_the_vocabulary(package: Path) -> None:
    _, harness = _bench(package)
    ids = harness.ran[0].items[0].token_ids
    assert max(ids) < VOCAB
    assert len(set(ids)) == VOCAB
