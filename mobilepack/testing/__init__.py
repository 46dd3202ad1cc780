"""What ships for tests: a harness without a runtime, and the checks that every harness passes."""

from mobilepack.testing.fakes import TICK_NS, FakeHarness, ToyModel
from mobilepack.testing.harness_checks import HARNESS_CHECKS

__all__ = ["HARNESS_CHECKS", "TICK_NS", "FakeHarness", "ToyModel"]
