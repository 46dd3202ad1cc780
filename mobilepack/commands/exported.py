"""Run a plan on the exported graph, in this process, if it is to be had at a fair cost."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from mobilepack.contract.package import Package
from mobilepack.contract.reference import Variant
from mobilepack.contract.run_plan import Generate, RunPlan, Teacher
from mobilepack.contract.run_result import Environment, Memory, RunResult
from mobilepack.errors import MobilepackError
from mobilepack.harness import machine
from mobilepack.harness.base import OnProgress
from mobilepack.harness.runner import Clock, Refeeding, run_items
from mobilepack.pipeline.exported import exported_bytes, open_exported, source_model

When = Literal["auto", "always", "never"]

SECONDS = 60.0
"""What `auto` may take, estimated."""
_BYTES_PER_S = 5e9  # a decode step reads every weight once; one core of a server of 2024
_FLOP_PER_S = 2e10


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """What the exported graph brought back, or why it did not run."""

    result: RunResult | None
    equals: Variant = "fp32"
    reason: str = ""


def run_exported(
    package: Package, plan: RunPlan, when: When, threads: int, on_progress: OnProgress
) -> ExportedRun:
    """Export the package's model again and run a plan on the graph."""
    if when == "never":
        return ExportedRun(None, reason="--exported never")
    if when == "auto" and (why := _too_much(package, plan)):
        return ExportedRun(None, reason=f"{why}; --exported always runs it all the same")
    try:
        with source_model(package.manifest.plan) as model:
            import torch

            torch.set_num_threads(threads or 1)  # small steps: more threads wait for one another
            opened = open_exported(model, package.manifest, package.root)
            again = Refeeding(opened.step, plan.prefill_chunk)
            step = again if opened.recurrent else opened.step
            out = run_items(plan, step, on_progress, Clock())
    except MobilepackError as err:
        return ExportedRun(None, reason=f"{err.why}; {err.next}")
    sha256 = hashlib.sha256(plan.to_json().encode()).hexdigest()
    result = RunResult(
        plan_sha256=sha256,
        load_ns=0,
        rows=tuple(out.rows),
        generated=tuple(out.generated),
        memory=Memory(before_load_bytes=0, after_load_bytes=0, peak_bytes=0),
        environment=Environment(
            kind="host",
            representative=False,
            name="torch",
            cpu=machine.cpu_name(),
            threads=torch.get_num_threads(),
            runtime={"torch": str(torch.__version__)},
        ),
    )
    return ExportedRun(result, opened.equals)


def _too_much(package: Package, plan: RunPlan) -> str:
    """Return why it costs more than `auto` may, empty if it does not."""
    size, (_, available) = exported_bytes(package.manifest), machine.memory_bytes()
    if size > available / 2:
        return (
            f"its weights take {size / 1e9:.1f} GB in float32, and {available / 1e9:.1f} are free"
        )
    calls = sum(_calls(item) for item in plan.items if isinstance(item, Teacher | Generate))
    positions = sum(item.positions for item in plan.items)
    flop = 2 * package.manifest.parameters * positions
    seconds = calls * size / _BYTES_PER_S + flop / _FLOP_PER_S
    return "" if seconds <= SECONDS else f"it would take about {seconds:.0f} s in eager PyTorch"


def _calls(item: Teacher | Generate) -> int:
    return len(item.calls) if isinstance(item, Teacher) else item.max_new_tokens
