"""Run the benchmarks: `python -m benchmarks.run --suite all --out results.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.build_suite import measure_build
from benchmarks.environments import EnvironmentFailedError, cache_folder, ensure, installed_versions
from benchmarks.host import describe_host, load_average
from benchmarks.peers.registry import PEERS, peer_named
from benchmarks.protocol import PROTOCOL
from benchmarks.record import Document
from benchmarks.run_suite import measure_runs
from benchmarks.settings import Settings
from benchmarks.shapes import SHAPES, shape_named
from benchmarks.tables import render

_DEFAULT_SHAPES = "smollm2-135m,qwen3-0.6b,llama3.2-1b"
_DEFAULT_PEERS = "mobilepack,llama.cpp"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; results are saved after each of them."""
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
    except KeyError as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    document = Document(
        command=("python", "-m", "benchmarks.run", *sys.argv[1:]),
        started_utc=_now(),
        host=describe_host(),
        load_average_before=load_average(),
        protocol=PROTOCOL,
    )
    _note_versions(document, settings)
    if options.suite in ("build", "all"):
        _build(document, settings, options.out)
    if options.suite in ("run", "all"):
        _run(document, settings, options.out)
    document.finished_utc = _now()
    document.load_average_after = load_average()
    document.save(options.out)
    print(render(document))
    return 0


def _build(document: Document, settings: Settings, out: Path) -> None:
    for shape in settings.shapes:
        for peer in settings.peers:
            print(f"build {shape.name} with {peer.name}", file=sys.stderr)
            document.build.append(measure_build(settings, peer, shape))
            document.save(out)


def _run(document: Document, settings: Settings, out: Path) -> None:
    for shape in settings.shapes:
        print(f"run {shape.name}", file=sys.stderr)
        document.run.append(measure_runs(settings, shape))
        document.save(out)


def _note_versions(document: Document, settings: Settings) -> None:
    for peer in settings.peers:
        try:
            python = ensure(peer.environment)
        except EnvironmentFailedError as error:
            print(f"{peer.name}: {error}", file=sys.stderr)
            continue
        document.versions[peer.name] = installed_versions(python, peer.versions_of)


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        shapes=tuple(shape_named(name) for name in options.shapes.split(",")),
        peers=tuple(peer_named(name) for name in options.peers.split(",")),
        rounds=options.rounds,
        threads=options.threads,
        context=options.context,
        quiet_wait_s=options.quiet_wait_s,
        priority=options.priority,
        build_limit_s=options.build_limit_s,
        run_limit_s=options.run_limit_s,
        checkpoints=options.checkpoints or cache_folder() / "checkpoints",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Measure mobilepack against its peers; see benchmarks/README.md.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    shapes = ", ".join(shape.name for shape in SHAPES)
    peers = ", ".join(peer.name for peer in PEERS)
    add = parser.add_argument
    add("--suite", choices=("build", "run", "all"), default="all", help="what to measure")
    add("--shapes", default=_DEFAULT_SHAPES, help=f"comma-separated; known: {shapes}")
    add("--peers", default=_DEFAULT_PEERS, help=f"the first is the subject; known: {peers}")
    add("--out", type=Path, required=True, help="JSON file to write")
    add("--rounds", type=int, default=5, help="times each engine runs per shape")
    add("--threads", type=int, default=2, help="CPU threads per engine")
    add("--context", type=int, default=1024, help="KV cache length in tokens")
    add("--quiet-wait-s", type=float, default=60.0, help="longest wait for an idle machine")
    add("--priority", type=int, default=0, help="nice value of what is measured; below 0: root")
    add("--build-limit-s", type=float, default=7200.0, help="longest a build command may take")
    add("--run-limit-s", type=float, default=900.0, help="longest a measured process may take")
    add("--checkpoints", type=Path, help="folder of checkpoints (default: in the cache)")
    return parser


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
