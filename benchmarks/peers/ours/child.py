"""Measure a package of ours whose packed weights are kept between loads, as `chat` loads it."""

from __future__ import annotations

import sys
from pathlib import Path

import executorch

from benchmarks.peers.executorch_child import ExecuTorch
from benchmarks.workload import Job, run_child
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import Package
from mobilepack.harness.weight_cache import WeightCache


class KeptWeights(ExecuTorch):
    """ExecuTorch with its file of packed weights."""

    def load(self, job: Job) -> None:
        """Load the program from its packed weights, which an earlier load has kept."""
        root = Path(job.program).parent
        program = Package(root, Manifest.read(root / "manifest.json")).weight_cache
        self.cache = WeightCache(Path(next(iter(executorch.__path__))) / "lib", program)
        self.cache.enable()
        super().load(job)

    def versions(self) -> dict[str, str]:
        """Add what the load did: `used` in every round that counts."""
        return super().versions() | {"weight_cache": self.cache.outcome()}


def warm_up(program: str) -> None:
    """Load once, so that the packed weights are there."""
    engine = KeptWeights()
    engine.load(Job(program=program))


if __name__ == "__main__":
    if sys.argv[1] == "warm-up":
        warm_up(sys.argv[2])
    else:
        run_child(KeptWeights())
