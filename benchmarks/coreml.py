"""Measure what Core ML packages cost to build, and prove the SmolLM2 shape.

`python -m benchmarks.coreml` builds checkpoints of random weights (`checkpoint.py`) for iOS 18,
each in a process of its own, and proves most with `mobilepack verify`: prefill and
decode steps through the package's own cache, in our interpreter, against eager PyTorch. CPU time
and memory are the kernel's for the whole process tree. Writes JSON; a table of
docs/targets/coreml.md is made from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import write_checkpoint
from benchmarks.environments import cache_folder
from benchmarks.host import describe_host
from benchmarks.process import run_measured
from benchmarks.shapes import shape_named

SCHEMA = "mobilepack.benchmarks.coreml/1"
RESULT = Path(__file__).parent / "results" / "coreml.json"
MB = 1_000_000
LIMIT_S = 3600


@dataclass(frozen=True, slots=True)
class Case:
    """A build; `proved` ones are verified too."""

    shape: str
    target: str
    recipe: str
    proved: bool = False
    more: tuple[str, ...] = ()


SMALL = "smollm2-135m"
RECIPES = ("fp16", "8w", "4w", "4p")
CUT = ("--weight-limit-mb", "60")
CASES = (
    *(Case(SMALL, "coreml-mlpackage", recipe, True) for recipe in RECIPES),
    Case(SMALL, "coreml-mlpackage", "4p", True, ("--group-size", "8")),
    *(Case(SMALL, "coreml-mlpackage", recipe, True, ("--states",)) for recipe in RECIPES),
    *(Case(SMALL, "coreml", recipe, True) for recipe in RECIPES),
    Case(SMALL, "coreml-mlpackage", "8w", True, CUT),
    Case(SMALL, "coreml-mlpackage", "4p", True, CUT),
    Case(SMALL, "coreml", "8w", True, CUT),
    Case("llama3.2-1b", "coreml-mlpackage", "4w"),
    Case("llama3.2-1b", "coreml-mlpackage", "8w"),
    Case("llama3.2-1b", "coreml", "8w"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What one build cost.

    Attributes:
        cpu_s: User and system seconds of `mobilepack build`, flight recorder included.
        write_cpu_s: Of the stage that writes the program.
        programs: Core ML programs that a decode step calls.
        cosine_min: Least cosine of any checked position against the eager model that the program
            must equal; None where it was not run.
        top1: Least agreement of the largest logit, ties excepted.
        decode_steps: Positions that were decoded one by one.
    """

    case: Case
    cpu_s: float
    peak_rss_mb: float
    write_cpu_s: float
    program_mb: float
    programs: int
    cosine_min: float | None = None
    top1: float | None = None
    decode_steps: int | None = None


def measure(case: Case, checkpoints: Path, out: Path) -> Row:
    """Build one case, and prove it where it is to be.

    Raises:
        RuntimeError: The build or the proof failed.
    """
    checkpoint = checkpoints / case.shape
    write_checkpoint(shape_named(case.shape), checkpoint)
    command = [sys.executable, "-m", "mobilepack", "build", str(checkpoint), "--json"]
    command += ["--target", case.target, "--recipe", case.recipe, "-o", str(out), *case.more]
    ran = run_measured(command, limit_s=LIMIT_S)
    if ran.returncode:
        raise RuntimeError(f"{case}: {ran.explain_failure()}")
    (package,) = json.loads(ran.stdout)["packages"]
    manifest = package["manifest"]
    names = ("model.mlpackage/", "model/", "model.pte")
    size = sum(e["bytes"] for e in manifest["files"] if e["path"].startswith(names))
    write = next(stage for stage in manifest["stages"] if stage["name"] == "write")
    decode = next(method for method in manifest["methods"] if method["name"] == "decode")
    proof = prove(Path(package["folder"])) if case.proved else {}
    return Row(
        case,
        round(ran.cpu_s, 1),
        round(ran.peak_rss_bytes / MB),
        write["cpu_s"],
        round(size / MB, 1),
        len({call["program"] for call in decode["calls"]}),
        **proof,
    )


def prove(folder: Path) -> dict[str, Any]:
    """Return what `verify` found, least values over all checks against eager PyTorch.

    Raises:
        RuntimeError: It did not pass.
    """
    command = [sys.executable, "-m", "mobilepack", "verify", str(folder), "--json"]
    command += ["--exported", "never", "-t", "1", "--timeout", str(LIMIT_S), "-d", "host"]
    ran = run_measured(command, limit_s=LIMIT_S)
    if ran.returncode:
        raise RuntimeError(f"{folder}: {ran.explain_failure()}")
    report = next(iter(folder.glob("runs/*/*/parity.json")))
    rows = [r for r in json.loads(report.read_text())["rows"] if r["status"] == "passed"]
    rows = [row for row in rows if row["against"].startswith("eager")]

    def least(name: str) -> float:
        return min(m["value"] for row in rows for m in row["metrics"] if m["name"] == name)

    steps = [row["compared"] for row in rows if "decode steps" in row["check"]]
    return {
        "cosine_min": least("cosine_min"),
        "top1": least("top1_agreement_but_ties"),
        "decode_steps": sum(steps),
    }


def render(path: Path = RESULT) -> str:
    """Return the table of a results document."""
    document = json.loads(path.read_text())
    host = document["host"]["cpu_model"]
    lines = [
        f"{document['started_utc'][:10]}, {host}:",
        "",
        "| shape | target | recipe | build, CPU s | of it writing | peak memory, MB | program, MB |"
        " programs | cosine, least | top-1 | decode steps |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in document["rows"]:
        case = row["case"]
        more = " ".join(case["more"]).replace("--weight-limit-mb", "cut at").replace("--", "")
        target = ", ".join(filter(None, (case["target"], more.replace("group-size", "groups of"))))
        cosine, top1, steps = (row[key] for key in ("cosine_min", "top1", "decode_steps"))
        proof = ("", "", "") if cosine is None else (f"{cosine:.6f}", f"{top1:g}", str(steps))
        cells = (
            *(case["shape"], target, case["recipe"], f"{row['cpu_s']:.0f}"),
            *(f"{row['write_cpu_s']:.1f}", f"{row['peak_rss_mb']:.0f}", f"{row['program_mb']:.1f}"),
            *(str(row["programs"]), *proof),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure everything and write the results document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coreml", description=__doc__)
    add = parser.add_argument
    add("--checkpoints", type=Path, help="folder of checkpoints (default: in the cache)")
    add("--out", type=Path, default=RESULT)
    add("--resume", action="store_true", help="keep the rows that are there")
    options = parser.parse_args()
    checkpoints = options.checkpoints or cache_folder() / "checkpoints"
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": asdict(describe_host()),
        "rows": [],
    }
    if options.resume:
        document = json.loads(options.out.read_text())
    known = [row["case"] for row in document["rows"]]
    for case in (c for c in CASES if json.loads(json.dumps(asdict(c))) not in known):
        with tempfile.TemporaryDirectory() as folder:
            row = measure(case, checkpoints, Path(folder))
        document["rows"].append(asdict(row))
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(row, flush=True)


if __name__ == "__main__":
    main()
