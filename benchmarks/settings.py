"""Hold what one invocation of the benchmarks was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import cache_folder
from benchmarks.peers.base import BuildRequest, Peer
from benchmarks.shapes import Shape


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold the options that both suites share.

    Attributes:
        rounds: Times each engine is run per shape.
        quiet_wait_s: Longest wait, before each measurement, for an idle machine.
        priority: Nice value of what is measured.
        build_limit_s: Longest a command of a build may take.
        run_limit_s: Longest a child of the run suite may take.
        checkpoints: Folder of checkpoints; missing ones are generated there.
    """

    shapes: tuple[Shape, ...]
    peers: tuple[Peer, ...]
    rounds: int
    threads: int
    context: int
    quiet_wait_s: float
    priority: int
    build_limit_s: float
    run_limit_s: float
    checkpoints: Path

    def request(self, shape: Shape, peer: Peer) -> BuildRequest:
        """Say where a peer's build of a shape reads and writes."""
        return BuildRequest(
            shape=shape,
            checkpoint=self.checkpoints / shape.name,
            output=cache_folder() / "artifacts" / peer.name / shape.name,
            context=self.context,
            threads=self.threads,
        )
