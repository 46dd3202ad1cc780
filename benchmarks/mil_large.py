"""Measure what interpreting a package of 1 GB takes: memory beside its file, and time per token.

`python -m benchmarks.mil_large` builds Llama-3.2-1B's shape with random weights
and feeds each package a prefill and some decode steps, in a fresh process that reads its own peak.
Writes JSON; a table of docs/mil.md is made from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.checkpoint import write_checkpoint
from benchmarks.environments import cache_folder
from benchmarks.host import describe_host
from benchmarks.process import run_measured
from benchmarks.shapes import shape_named

SCHEMA = "mobilepack.benchmarks.mil-large/1"
RESULT = Path(__file__).parent / "results" / "mil_large.json"
SHAPE = "llama3.2-1b"
CASES = (
    ("coreml-mlpackage", "8w"),
    ("coreml", "8w"),
    ("coreml-mlpackage", "4w"),
    ("coreml-mlpackage", "4p"),
)
STEPS = 4
LIMIT_S = 3600
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """What one package cost.

    Attributes:
        program_mb: Its weights and programs on disk.
        prefill_s: CPU seconds of the first call, 64 tokens.
        step_s: CPU seconds of each decode step.
        peak_rss_mb: Largest resident set, the mapped file included.
        anonymous_mb: What of it was no mapped file, after the last step.
    """

    target: str
    recipe: str
    program_mb: float
    prefill_s: float
    step_s: tuple[float, ...]
    peak_rss_mb: float
    anonymous_mb: float


def measure(target: str, recipe: str, checkpoint: Path, out: Path) -> Row:
    """Build a package and interpret it.

    Raises:
        RuntimeError: The build or the run failed.
    """
    command = [sys.executable, "-m", "mobilepack", "build", str(checkpoint), "-o", str(out)]
    command += ["--target", target, "--recipe", recipe]
    child = [sys.executable, "-m", "benchmarks.mil_large", "--child", str(out / target)]
    for asked in (command, child):
        ran = run_measured(asked, limit_s=LIMIT_S)
        if ran.returncode:
            raise RuntimeError(f"{target} {recipe}: {ran.explain_failure()}")
    return Row(target, recipe, **json.loads(ran.stdout))


def interpret(folder: Path) -> dict[str, Any]:
    """Feed a package; return the fields of `Row`."""
    from mobilepack.contract.package import open_package
    from mobilepack.harness.mil_program import MilProgram

    package = open_package(folder)
    programs = ("model.mlpackage/", "model/", "model.pte")
    size = sum(e.bytes for e in package.manifest.files if e.path.startswith(programs))
    program = MilProgram(package.program, package.manifest, 1)
    chunk = package.manifest.plan.prefill_chunk
    spent = [time.process_time()]
    for position in (0, *range(chunk, chunk + STEPS)):
        count = 1 if position else chunk
        program(np.arange(position, position + count, dtype=np.int64), position)
        spent.append(time.process_time())
    first, *steps = np.diff(spent).round(3).tolist()
    status = Path("/proc/self/status").read_text()
    found = {row.split(":")[0]: row.split()[1] for row in status.splitlines() if "kB" in row}
    peak, anonymous = (round(int(found[key]) * 1024 / MB) for key in ("VmHWM", "RssAnon"))
    return {
        "program_mb": round(size / MB),
        "prefill_s": first,
        "step_s": steps,
        "peak_rss_mb": peak,
        "anonymous_mb": anonymous,
    }


def render(path: Path = RESULT) -> str:
    """Return the table of a results document."""
    document = json.loads(path.read_text())
    lines = [
        f"{document['started_utc'][:10]}, one core of {document['host']['cpu_model'].strip()}:",
        "",
        "| package | on disk, MB | peak memory, MB | not mapped, MB | prefill of 64, CPU s |"
        " CPU s per token |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in document["rows"]:
        name = f"{document['shape']} `{row['target']}`, `{row['recipe']}`"
        step = f"{median(row['step_s']):.2f}"
        cells = (row["program_mb"], row["peak_rss_mb"], row["anonymous_mb"])
        lines.append(
            f"| {name} | " + " | ".join(map(str, cells)) + f" | {row['prefill_s']:.1f} | {step} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure everything and write the results document, or be the child."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mil_large", description=__doc__)
    add = parser.add_argument
    add("--checkpoints", type=Path, help="folder of checkpoints (default: in the cache)")
    add("--out", type=Path, default=RESULT)
    add("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(interpret(options.child)))
        return
    checkpoint = (options.checkpoints or cache_folder() / "checkpoints") / SHAPE
    write_checkpoint(shape_named(SHAPE), checkpoint)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": asdict(describe_host()),
        "shape": SHAPE,
        "rows": [],
    }
    for target, recipe in CASES:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(target, recipe, checkpoint, Path(folder))
        document["rows"].append(asdict(row))
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(row, flush=True)


if __name__ == "__main__":
    main()
