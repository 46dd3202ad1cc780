"""`mobilepack bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, packages, render
from mobilepack.cli.compare import print_changes
from mobilepack.cli.device_options import Devices, conclude, device_options, on_each
from mobilepack.cli.progress import steps
from mobilepack.errors import ExitCode

if TYPE_CHECKING:
    from mobilepack.commands.alternate import Alternated
    from mobilepack.commands.bench import BenchResult
    from mobilepack.contract.bench import Bench, BenchTest, Statistics
    from mobilepack.harness.base import Harness, Progress


@click.command(
    epilog="""\b
Example
  mobilepack bench
  mobilepack bench out/mine/xnnpack -p 128 -p 512 -n 64 --depth 0 --depth 256 --json
  mobilepack bench -d 14141JEC204776 --cooldown 10
  mobilepack bench out/today/xnnpack --against out/yesterday/xnnpack
  mobilepack bench -d my-virtual-phone -p 32 -n 8 -r 2 --warmups 1
"""
)
@packages.package_argument
@device_options
@click.option(
    "-p",
    "--n-prompt",
    "prompts",
    type=click.IntRange(min=0),
    multiple=True,
    default=(512,),
    show_default=True,
    metavar="TOKENS",
    help="Prompt length of a pp test; may be given several times.",
)
@click.option(
    "-n",
    "--n-gen",
    "gens",
    type=click.IntRange(min=0),
    multiple=True,
    default=(128,),
    show_default=True,
    metavar="TOKENS",
    help="Generated tokens of a tg test; may be given several times.",
)
@click.option(
    "-pg",
    "pairs",
    type=(click.IntRange(min=1), click.IntRange(min=1)),
    multiple=True,
    metavar="TOKENS TOKENS",
    help="A prompt and what is generated after it, in one test; may be given several times.",
)
@click.option(
    "--depth",
    "depths",
    type=click.IntRange(min=0),
    multiple=True,
    default=(0,),
    show_default=True,
    metavar="TOKENS",
    help="Tokens in the KV cache before the clock starts; may be given several times.",
)
@click.option(
    "-r",
    "--repetitions",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Timed rounds of each test.",
)
@click.option(
    "--warmups",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Untimed rounds before them.",
)
@click.option(
    "--cooldown",
    "cooldown_s",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Pause before each round.",
)
@click.option(
    "--against",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="PACKAGE",
    help="Time this baseline in turns with the package and print the ratios.",
)
@click.option(
    "--max-celsius",
    type=click.FloatRange(min=0),
    default=37.0,
    show_default=True,
    metavar="CELSIUS",
    help="Start on a phone only when battery and skin are not above this; waits ten minutes.",
)
@click.option(
    "--cores",
    default="all",
    show_default=True,
    metavar="big|all|LIST",
    help="Cores of an Android phone that the runner is kept on; `big` asks the kernel which are "
    "strong, a list is such as 4-7.",
)
@options.threads_option
@options.timeout_option(3600)
@options.json_option
def command(  # noqa: PLR0913 - one parameter per option
    package: Path | None,
    devices: Devices,
    prompts: tuple[int, ...],
    gens: tuple[int, ...],
    pairs: tuple[tuple[int, int], ...],
    depths: tuple[int, ...],
    repetitions: int,
    warmups: int,
    cooldown_s: float,
    against: Path | None,
    max_celsius: float,
    cores: str,
    threads: int,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Time a package: prompt processing, generation, load, memory.

    The terms are llama-bench's: ppN processes a prompt of N tokens, tgN generates N. Tokenisation
    and sampling are outside the clock; TTFT excludes loading. Memory is taken in a process of its
    own. Numbers of this machine are marked `representative: false`: they are not a phone's. A
    virtual phone runs one thread and counts instructions per token, which are the same every time.
    """
    from mobilepack.commands.alternate import bench_against
    from mobilepack.commands.bench import BenchOptions, bench
    from mobilepack.harness.android.gates import Gate

    chosen = packages.existing_or_built(package, quiet=as_json)
    asked = BenchOptions(
        prompt_tokens=prompts,
        gen_tokens=gens,
        pairs=pairs,
        depths=depths,
        warmups=warmups,
        repetitions=repetitions,
        cooldown_s=cooldown_s,
        threads=threads,
        timeout_s=timeout_s,
    )
    gate = Gate(max_c=max_celsius)
    harnesses = devices.harnesses("bench", count_instructions=True, gate=gate, cores=cores)
    with steps("bench", quiet=as_json) as progress:

        def work(harness: Harness) -> BenchResult | Alternated:
            before = f"{harness.device.id}: " if len(harnesses) > 1 else ""

            def tell(now: Progress) -> None:
                progress.step(before + now.item if now.item else "", now.done, now.total)

            if against is not None:
                return bench_against(chosen, against, asked, harness=harness, on_progress=tell)
            return bench(chosen, asked, harness=harness, on_progress=tell)

        outcomes = on_each(harnesses, work)

    def shown(result: BenchResult | Alternated) -> int:
        if as_json:
            return ExitCode.OK
        print_outcome(result)
        return ExitCode.OK

    return conclude("bench", outcomes, shown, as_json=as_json)


def print_outcome(result: BenchResult | Alternated) -> None:
    """Print one package's table, or the baseline's, the package's, and how they differ."""
    from mobilepack.commands.bench import BenchResult

    if isinstance(result, BenchResult):
        print_result(result)
        return
    print_result(result.baseline)
    print_result(result.result)
    print_changes(result.changes, every=True)


def print_result(result: BenchResult) -> None:
    """Print llama-bench's table, then what it lacks: spread, verdict, TTFT, load, memory."""
    bench = result.bench
    title = f"{bench.model} {bench.recipe}"
    render.table(
        ("model", "size", "params", "backend", "test", "t/s", "median", "p90", "verdict"),
        [_row(title, bench, test) for test in bench.tests],
    )
    for test in bench.tests:
        if test.ttft_ms is not None:
            render.line(f"{test.test}: TTFT {_milliseconds(test.ttft_ms)}")
        if test.decode_token_ms is not None:
            render.line(f"{test.test}: per token {_milliseconds(test.decode_token_ms)}")
        render.line(f"{test.test}: {test.trust}: {test.trust_reason}")
        if test.instructions_per_token is not None:
            count = test.instructions_per_token
            render.line(f"{test.test}: {count / 1e6:.3f} million instructions per token")
    print_conditions(bench)
    for name, why in result.skipped:
        render.line(f"{render.status('not run')}  {name}: {why}")
    render.line(f"results: {result.folder / 'bench.json'}")


def _row(title: str, bench: Bench, test: BenchTest) -> tuple[str, ...]:
    speed = test.round_tok_per_s
    return (
        title,
        render.size(bench.program_bytes),
        f"{bench.parameters / 1e6:.2f} M",
        bench.backend,
        test.test,
        f"{test.avg_ts:.2f} ± {test.stddev_ts:.2f}",
        f"{speed.median:.2f}",
        f"{speed.p90:.2f}",
        test.trust,
    )


def _milliseconds(values: Statistics) -> str:
    return f"median {values.median:.2f} ms, p90 {values.p90:.2f} ms, {values.samples} samples"


def print_conditions(bench: Bench) -> None:
    """Print load, memory and what the numbers stand for."""
    loads = ", ".join(f"{load:.0f}" for load in bench.load_ms)
    cached = ", ".join(f"{load:.0f}" for load in bench.cached_load_ms)
    kept = f"; {cached} ms from kept packed weights" if cached else ""
    render.line(f"load: {loads} ms (one process each){kept}")
    render.line(
        f"memory: {render.size(bench.loaded_bytes)} after loading,"
        f" {render.size(bench.peak_over_base_bytes)} at the peak, over the empty process"
    )
    protocol = bench.protocol
    render.line(
        f"protocol: {protocol.warmups} warm-ups, {protocol.repetitions} repetitions,"
        f" {protocol.threads} threads, chunks of {protocol.prefill_chunk}; clock: {protocol.clock}"
    )
    place = f"{bench.environment.name}, {bench.environment.cpu}"
    stands = "a user's device" if bench.representative else "this machine only, not a phone"
    render.line(
        f"device: {bench.device} ({place}); representative: {str(bench.representative).lower()}"
        f" ({stands})"
    )
