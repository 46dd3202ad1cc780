"""onnxruntime-genai: its model builder and its runtime on the CPU, int4 weights."""

from __future__ import annotations

from pathlib import Path

from benchmarks.environments import Environment
from benchmarks.peers.base import BuildRequest, BuildStep, Peer

ENVIRONMENT = Environment(
    name="genai",
    requirements=(
        "onnxruntime-genai==0.18.0",
        "onnxruntime==1.31.1",
        "onnx==1.23.2",
        "onnx-ir==1.1.0",
        "torch==2.13.0",
        "transformers==5.23.0",
    ),
    needs_torch=True,
)


def _plan(python: Path, request: BuildRequest) -> tuple[BuildStep, ...]:
    tied = str(request.shape.tie_word_embeddings).lower()
    command = (
        str(python),
        *("-m", "onnxruntime_genai.models.builder"),
        *("-i", str(request.checkpoint)),
        *("-o", str(request.output / "model")),
        *("-c", str(request.output / "cache")),
        *("-p", "int4", "-e", "cpu"),
        # Logits of the last token only, as the others; one copy of a tied head.
        *("--extra_options", "prune_lm_head=true", f"shared_embeddings={tied}"),
    )
    return (BuildStep("onnxruntime-genai model builder, int4", command),)


def _weighed(output: Path) -> tuple[Path, ...]:
    return tuple(sorted((output / "model").glob("*.onnx*")))


PEER = Peer(
    name="onnxruntime-genai",
    environment=ENVIRONMENT,
    versions_of=("onnxruntime-genai", "onnxruntime", "onnx", "torch", "transformers"),
    child="benchmarks.peers.genai.child",
    plan=_plan,
    program=lambda output: output / "model",
    weighed=_weighed,
)
