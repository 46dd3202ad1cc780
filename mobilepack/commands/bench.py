"""bench: time a package in llama-bench's terms, memory in a separate pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilepack.commands.bench_record import record_bench
from mobilepack.contract.bench import Bench
from mobilepack.contract.package import Package, open_package
from mobilepack.contract.run_folder import RunFolder, new_run_folder
from mobilepack.contract.run_plan import RunPlan, Teacher, Time
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import UsageError
from mobilepack.harness.base import DeviceKind, Harness, Limits, OnProgress, Progress, silent
from mobilepack.harness.host import HostHarness

_MEMORY_GEN = 8
_TOKENS = 512
_CACHED_LOADS = 2
_ONE_TOKEN = Teacher(name="one token", token_ids=(0,), calls=(1,))


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of `mobilepack bench`; the tests are every depth with every prompt and generation.

    Attributes:
        prompt_tokens: `-p`, repeatable; 0 entries are ignored. Each is one `ppN` test.
        gen_tokens: `-n`, repeatable; each is one `tgN` test.
        pairs: `-pg`, repeatable: a prompt and what is generated after it, one `ppN+tgM` test each.
        depths: `-d`, repeatable: tokens already in the cache.
        warmups: Untimed rounds per test.
        repetitions: `-r`.
        cooldown_s: Pause before each round, seconds.
        threads: `-t`; 0 for one per physical core.
        timeout_s: Limit of each of the two passes.
    """

    prompt_tokens: tuple[int, ...] = (512,)
    gen_tokens: tuple[int, ...] = (128,)
    pairs: tuple[tuple[int, int], ...] = ()
    depths: tuple[int, ...] = (0,)
    warmups: int = 3
    repetitions: int = 5
    cooldown_s: float = 0.0
    threads: int = 0
    timeout_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What `bench` measured; already written to `folder`.

    Attributes:
        skipped: Tests that do not fit the package's `max_seq_len`, as `(test, why)`.
        folder: `<package>/runs/<device>/<utc>` with bench.json, run_plan.json, run_result.json,
            log.txt.
    """

    bench: Bench
    skipped: tuple[tuple[str, str], ...]
    folder: Path


def bench(
    path: Path,
    options: BenchOptions = BenchOptions(),
    *,
    harness: Harness | None = None,
    on_progress: OnProgress = silent,
) -> BenchResult:
    """Time a package on the host (or on the device of `harness`) and write the results.

    Raises:
        MissingError: There is no package.
        UsageError: The package is damaged, or no test fits it.
        RunFailedError: The program could not be run to its end.
    """
    begun = begin(path, options, harness or HostHarness())
    timed = begun.run(begun.plan, on_progress)
    return finish(begun, timed, on_progress)


@dataclass(frozen=True, slots=True)
class Begun:
    """A package whose timing has been planned.

    Attributes:
        skipped: As in `BenchResult`.
        folder: New, with the run plan in it.
    """

    package: Package
    plan: RunPlan
    tests: tuple[Time, ...]
    skipped: tuple[tuple[str, str], ...]
    folder: RunFolder
    runner: Harness
    limits: Limits

    def run(self, plan: RunPlan, on_progress: OnProgress = silent) -> RunResult:
        """Carry out a plan with the package."""
        return self.runner.run(
            self.package.root,
            plan,
            log=self.folder.log,
            limits=self.limits,
            on_progress=on_progress,
        )


def begin(path: Path, options: BenchOptions, runner: Harness) -> Begun:
    """Plan the tests of a package and write the plan.

    Raises:
        MissingError: There is no package.
        UsageError: The package is damaged, or no test fits it.
    """
    package = open_package(path)
    tests, skipped = _tests(package, options)
    folder = new_run_folder(package.root, runner.device.id)
    # Instructions are the same every time with one thread only, and an emulator's times are none.
    threads = 1 if runner.device.kind == "emulator" else options.threads
    plan = _plan(package, tests, threads, runner.device.kind)
    folder.write("run_plan.json", plan)
    limits = Limits.within(options.timeout_s)
    return Begun(package, plan, tests, skipped, folder, runner, limits)


def finish(begun: Begun, timed: RunResult, on_progress: OnProgress = silent) -> BenchResult:
    """Take memory and cached loads, each in a process of its own, and write the results.

    Raises:
        RunFailedError: The program could not be run to its end.
    """
    folder, package = begun.folder, begun.package
    folder.write("run_result.json", timed)

    def tell(now: Progress) -> None:
        on_progress(Progress(f"memory, {now.item}" if now.item else "", now.done, now.total))

    once = begun.plan.model_copy(update={"items": tuple(_once(test) for test in begun.tests)})
    memory = begun.run(once, tell)
    one = once.model_copy(update={"items": (_ONE_TOKEN,), "weight_cache": package.weight_cache})
    loads = [*_cached_loads(one, begun.run)]
    # Core ML keeps what it makes of a program: harnesses on Apple's devices load it twice.
    again = (result.cached_load_ns for result in (timed, memory))
    loads += [ns / 1e6 for ns in again if ns is not None]
    device = begun.runner.device.id
    record = record_bench(package, begun.plan, timed, memory, device=device, utc=folder.utc)
    record = record.model_copy(update={"cached_load_ms": tuple(loads)})
    folder.write("bench.json", record)
    return BenchResult(record, begun.skipped, folder.path)


def _tests(
    package: Package, options: BenchOptions
) -> tuple[tuple[Time, ...], tuple[tuple[str, str], ...]]:
    ids = _token_ids(package)
    room = package.manifest.plan.max_seq_len
    kinds = [(p, 0) for p in options.prompt_tokens if p] + [(0, n) for n in options.gen_tokens if n]
    kinds += [pair for pair in options.pairs if any(pair)]
    tests, skipped = [], []
    for depth in dict.fromkeys(options.depths):
        for prompt, gen in dict.fromkeys(kinds):
            name = name_of_test(prompt, gen, depth)
            if depth + prompt + gen > room:
                skipped.append((name, f"needs {depth + prompt + gen} positions of {room}"))
                continue
            tests.append(_time(name, ids, (prompt, gen, depth), options))
    if not tests:
        why = "; ".join(f"{name} {text}" for name, text in skipped) or "-p and -n are all 0"
        raise UsageError(
            "nothing-to-time",
            f"no test fits {package.root}",
            why=why,
            next="ask for fewer tokens (-p, -n), or build with a larger --max-seq-len",
        )
    return tuple(tests), tuple(skipped)


def name_of_test(n_prompt: int, n_gen: int, n_depth: int) -> str:
    """Return llama-bench's name of a test: `pp512`, `tg128`, `pp512+tg128`, `tg128 @ d512`."""
    parts = [f"pp{n_prompt}"] if n_prompt else []
    parts += [f"tg{n_gen}"] if n_gen else []
    return "+".join(parts) + (f" @ d{n_depth}" if n_depth else "")


def _time(
    name: str, ids: tuple[int, ...], size: tuple[int, int, int], options: BenchOptions
) -> Time:
    return Time(
        name=name,
        token_ids=ids,
        n_prompt=size[0],
        n_gen=size[1],
        n_depth=size[2],
        warmups=options.warmups,
        repetitions=options.repetitions,
        cooldown_s=options.cooldown_s,
    )


def _cached_loads(plan: RunPlan, run: Callable[[RunPlan], RunResult]) -> Iterator[float]:
    """Yield milliseconds of loads from kept packed weights; the first may have to make them."""
    for _ in range(_CACHED_LOADS + 1 if plan.weight_cache else 0):
        result = run(plan)
        state = result.environment.conditions.get("weight_cache", "")
        if state == "used":
            yield result.load_ns / 1e6
        elif state != "written":
            return


def _once(test: Time) -> Time:
    """Return a test that is enough to reach its peak of memory."""
    return test.model_copy(
        update={"warmups": 0, "repetitions": 1, "n_gen": min(test.n_gen, _MEMORY_GEN)}
    )


def _token_ids(package: Package) -> tuple[int, ...]:
    """Return ids all over the vocabulary, so that embedding rows are not all in one page."""
    found = package.manifest.metadata.get("get_vocab_size")
    size = found if isinstance(found, int) and found > 0 else 2
    return tuple(index * 7919 % size for index in range(1, _TOKENS + 1))


def _plan(package: Package, tests: tuple[Time, ...], threads: int, kind: DeviceKind) -> RunPlan:
    build = package.manifest.plan
    return RunPlan(
        program=package.program_on(kind),
        max_seq_len=build.max_seq_len,
        prefill_chunk=build.prefill_chunk,
        threads=threads,
        items=tests,
    )
