"""mobilepack itself, in the environment the benchmark was started in."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.peers.base import BuildRequest, BuildStep, Peer

_PROGRAM = Path("xnnpack") / "model.pte"


def _plan(embedding: str, python: Path, request: BuildRequest) -> tuple[BuildStep, ...]:
    options = {
        "--target": "xnnpack",
        "--recipe": "8da4w",
        "--qembedding": embedding,
        "--max-seq-len": str(request.context),
        "-o": str(request.output),
    }
    flat = [part for pair in options.items() for part in pair]
    command = (str(python), "-m", "mobilepack", "build", str(request.checkpoint), *flat, "--json")
    # A cache of its own: what is measured is a first build.
    variables = {"XDG_CACHE_HOME": str(request.output / "cache")}
    label = f"mobilepack build, {embedding} embedding"
    return (BuildStep(label, command, variables=variables),)


def _peer(name: str, embedding: str, *, kept: bool = False) -> Peer:
    own_child = "benchmarks.peers.ours.child"
    return Peer(
        name=name,
        environment=None,
        versions_of=("mobilepack", "executorch", "torch", "torchao"),
        child=own_child if kept else "benchmarks.peers.executorch_child",
        warm_up=("-m", own_child, "warm-up") if kept else (),
        # One OpenMP thread: torch's idle pool otherwise takes time from XNNPACK's.
        child_variables={"OMP_NUM_THREADS": "1"},
        plan=partial(_plan, embedding),
        program=lambda output: output / _PROGRAM,
        weighed=lambda output: (output / _PROGRAM,),
        keep=False,
    )


PEERS = (
    _peer("mobilepack", "8w"),
    _peer("mobilepack-4w", "4w"),
    _peer("mobilepack-kept", "4w", kept=True),
)
