"""Build small language models for phones and prove that they compute what PyTorch does.

Every verb of the command line is a function here with the same name (`report` is `write_report`), a
typed result, progress callbacks, and no printing:

    import mobilepack
    from pathlib import Path

    built = mobilepack.build(mobilepack.BuildOptions(out=Path("out")))
    result = mobilepack.verify(built[0].folder)
    assert result.parity.passed

Names are imported when they are first used, so that `import mobilepack` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mobilepack.version import __version__ as __version__

if TYPE_CHECKING:
    from mobilepack.commands.bench import BenchOptions, BenchResult, bench
    from mobilepack.commands.build import BuildOptions, Built, build
    from mobilepack.commands.campaign import (
        CampaignOptions,
        CampaignResult,
        campaign,
        read_campaign,
    )
    from mobilepack.commands.compare import Comparison, compare
    from mobilepack.commands.devices import AdbServer, Inventory, devices, harnesses
    from mobilepack.commands.explain import explain
    from mobilepack.commands.inspect import inspect
    from mobilepack.commands.plan import Prediction, plan
    from mobilepack.commands.report import Exports, ReportResult
    from mobilepack.commands.report import report as write_report
    from mobilepack.commands.targets import targets
    from mobilepack.commands.verify import Ladder, VerifyOptions, VerifyResult, verify
    from mobilepack.contract.gate import Gate
    from mobilepack.contract.package import Package, open_package
    from mobilepack.errors import (
        BuildError,
        CheckFailedError,
        MissingError,
        MobilepackError,
        RunFailedError,
        UsageError,
    )
    from mobilepack.pipeline.plan import Choices

_PLACES = {
    "commands.bench": ("BenchOptions", "BenchResult", "bench"),
    "commands.build": ("BuildOptions", "Built", "build"),
    "commands.campaign": ("CampaignOptions", "CampaignResult", "campaign", "read_campaign"),
    "commands.compare": ("Comparison", "compare"),
    "commands.devices": ("AdbServer", "Inventory", "devices", "harnesses"),
    "commands.explain": ("explain",),
    "commands.inspect": ("inspect",),
    "commands.plan": ("Prediction", "plan"),
    "commands.report": ("Exports", "ReportResult", "write_report"),
    "commands.targets": ("targets",),
    "commands.verify": ("Ladder", "VerifyOptions", "VerifyResult", "verify"),
    "contract.gate": ("Gate",),
    "contract.package": ("Package", "open_package"),
    "errors": (
        *("BuildError", "CheckFailedError", "MissingError", "MobilepackError"),
        *("RunFailedError", "UsageError"),
    ),
    "pipeline.plan": ("Choices",),
}
_RENAMED = {"write_report": "report"}  # `mobilepack.report` is a package
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "AdbServer",
    "BenchOptions",
    "BenchResult",
    "BuildError",
    "BuildOptions",
    "Built",
    "CampaignOptions",
    "CampaignResult",
    "CheckFailedError",
    "Choices",
    "Comparison",
    "Exports",
    "Gate",
    "Inventory",
    "Ladder",
    "MissingError",
    "MobilepackError",
    "Package",
    "Prediction",
    "ReportResult",
    "RunFailedError",
    "UsageError",
    "VerifyOptions",
    "VerifyResult",
    "bench",
    "build",
    "campaign",
    "compare",
    "devices",
    "explain",
    "harnesses",
    "inspect",
    "open_package",
    "plan",
    "read_campaign",
    "targets",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    value = getattr(module, _RENAMED.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
