"""ExecuTorch's own `export_llm`, in an environment that holds nothing of ours."""

from __future__ import annotations

from pathlib import Path

from benchmarks.environments import Environment
from benchmarks.peers.base import BuildRequest, BuildStep, Peer
from benchmarks.peers.export_llm.settings import PROGRAM_NAME
from benchmarks.shapes import Shape

ENVIRONMENT = Environment(
    name="export_llm",
    requirements=(
        "executorch==1.5.1",
        "torch==2.13.0",
        "torchao==0.18.0",
        "safetensors==0.8.0",
    ),
    needs_torch=True,
)


def _plan(python: Path, request: BuildRequest) -> tuple[BuildStep, ...]:
    module = "executorch.extension.llm.export.export_llm"
    prepare = (str(python), "-m", "benchmarks.peers.export_llm.prepare")
    paths = (str(request.checkpoint), str(request.output), "--context", str(request.context))
    config = str(request.output / "config.yaml")
    return (
        BuildStep("translate the checkpoint to Meta's names", prepare + paths, counted=False),
        BuildStep("export_llm", (str(python), "-m", module, "--config", config)),
    )


def _skip(shape: Shape) -> str:
    if shape.name == "phi3.5-mini":
        return "export_llm has no model class of these sizes"
    return ""


PEER = Peer(
    name="export_llm",
    environment=ENVIRONMENT,
    versions_of=("executorch", "torch", "torchao"),
    child="benchmarks.peers.executorch_child",
    child_variables={"OMP_NUM_THREADS": "1"},  # as for our own packages
    plan=_plan,
    program=lambda output: output / PROGRAM_NAME,
    weighed=lambda output: (output / PROGRAM_NAME,),
    skip=_skip,
)
