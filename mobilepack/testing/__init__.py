"""What ships for tests: harnesses without a runtime, checks for every harness, stand-in tools.

Names are imported when they are asked for: a stand-in tool starts a dozen times in a test and needs
none of them.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilepack.testing.fakes import TICK_NS, FakeHarness, ToyModel
    from mobilepack.testing.harness_checks import HARNESS_CHECKS

__all__ = ["HARNESS_CHECKS", "TICK_NS", "FakeHarness", "ToyModel"]

_HOMES = {"HARNESS_CHECKS": "harness_checks"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"mobilepack.testing.{_HOMES.get(name, 'fakes')}")
    return getattr(home, name)
