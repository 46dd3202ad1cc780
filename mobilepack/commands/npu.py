"""What can be said of a QNN package without a phone: a bound of its speed, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass

from mobilepack.contract.manifest import Manifest
from mobilepack.soc import load_soc


@dataclass(frozen=True, slots=True)
class Bound:
    """The least time of a decode step, if nothing but the main memory took any: an estimate.

    Attributes:
        moved_bytes: That one step reads and writes, as the compiler reckons.
        gb_per_s: Peak bandwidth of the SoC's memory; all of it is never reached.
        source: Who says so.
    """

    moved_bytes: int
    gb_per_s: float
    source: str

    @property
    def step_ms(self) -> float:
        """The least time of a step, ms."""
        return self.moved_bytes / self.gb_per_s / 1e6

    @property
    def tok_per_s(self) -> float:
        """The most tokens per second."""
        return 1000 / self.step_ms


def decode_bound(manifest: Manifest) -> Bound | None:
    """Return the bandwidth bound of a decode step, None where a figure is missing."""
    if manifest.npu is None or manifest.plan.soc_model is None:
        return None
    moved = manifest.npu.moved_bytes("decode")
    soc = load_soc(manifest.plan.soc_model)
    if not moved or soc.memory_gb_per_s is None:
        return None
    return Bound(moved, soc.memory_gb_per_s, soc.memory_source)


def npu_share(manifest: Manifest) -> float:
    """Return what the delegate runs: of the operators or of the weight bytes, whichever is less."""
    placement = manifest.placement
    operators = placement.delegated_operators + placement.fallback_operators
    weights = placement.delegated_weight_bytes + placement.fallback_weight_bytes
    return min(
        placement.delegated_operators / operators if operators else 0.0,
        placement.delegated_weight_bytes / weights if weights else 0.0,
    )
