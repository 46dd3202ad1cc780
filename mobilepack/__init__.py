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
    from mobilepack.commands.alternate import Alternated, bench_against
    from mobilepack.commands.app import AppOptions, WrittenApp, android_app
    from mobilepack.commands.app_ios import ios_app
    from mobilepack.commands.bench import BenchOptions, BenchResult, bench
    from mobilepack.commands.build import BuildOptions, Built, build
    from mobilepack.commands.campaign import (
        CampaignOptions,
        CampaignResult,
        campaign,
        read_campaign,
    )
    from mobilepack.commands.chat import Chat, ChatOptions
    from mobilepack.commands.compare import Comparison, compare
    from mobilepack.commands.deploy import deploy, places
    from mobilepack.commands.device_files import DeviceFiles, DeviceFilesOptions, device_files
    from mobilepack.commands.devices import AdbServer, Inventory, devices, harnesses
    from mobilepack.commands.doctor import Diagnosis, doctor
    from mobilepack.commands.evaluate import EvalOptions, EvalResult, evaluate
    from mobilepack.commands.explain import explain
    from mobilepack.commands.inspect import inspect
    from mobilepack.commands.lint import LintView, lint
    from mobilepack.commands.mil import DiffView, Invocation
    from mobilepack.commands.mil import diff as mil_diff
    from mobilepack.commands.mil import run as mil_run
    from mobilepack.commands.mil_show import show as mil_show
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
    from mobilepack.harness.android.app_folder import Deployed
    from mobilepack.harness.virtual.phones import create as create_virtual_phone
    from mobilepack.harness.virtual.phones import delete as delete_virtual_phone
    from mobilepack.harness.virtual.phones import phones as virtual_phones
    from mobilepack.harness.virtual.phones import start as start_virtual_phone
    from mobilepack.harness.virtual.phones import stop as stop_virtual_phone
    from mobilepack.pipeline.plan import Choices

_PLACES: dict[str, tuple[str, ...]] = {
    "commands.alternate": (
        "Alternated",
        "bench_against",
    ),
    "commands.app": (
        "AppOptions",
        "WrittenApp",
        "android_app",
    ),
    "commands.app_ios": ("ios_app",),
    "commands.bench": (
        "BenchOptions",
        "BenchResult",
        "bench",
    ),
    "commands.build": (
        "BuildOptions",
        "Built",
        "build",
    ),
    "commands.campaign": (
        "CampaignOptions",
        "CampaignResult",
        "campaign",
        "read_campaign",
    ),
    "commands.chat": (
        "Chat",
        "ChatOptions",
    ),
    "commands.compare": (
        "Comparison",
        "compare",
    ),
    "commands.deploy": (
        "deploy",
        "places",
    ),
    "commands.device_files": (
        "DeviceFiles",
        "DeviceFilesOptions",
        "device_files",
    ),
    "commands.devices": (
        "AdbServer",
        "Inventory",
        "devices",
        "harnesses",
    ),
    "commands.doctor": (
        "Diagnosis",
        "doctor",
    ),
    "commands.evaluate": (
        "EvalOptions",
        "EvalResult",
        "evaluate",
    ),
    "commands.explain": ("explain",),
    "commands.inspect": ("inspect",),
    "commands.lint": (
        "LintView",
        "lint",
    ),
    "commands.mil": (
        "DiffView",
        "Invocation",
        "mil_diff",
        "mil_run",
    ),
    "commands.mil_show": ("mil_show",),
    "commands.plan": (
        "Prediction",
        "plan",
    ),
    "commands.report": (
        "Exports",
        "ReportResult",
        "write_report",
    ),
    "commands.targets": ("targets",),
    "commands.verify": (
        "Ladder",
        "VerifyOptions",
        "VerifyResult",
        "verify",
    ),
    "contract.gate": ("Gate",),
    "contract.package": (
        "Package",
        "open_package",
    ),
    "errors": (
        "BuildError",
        "CheckFailedError",
        "MissingError",
        "MobilepackError",
        "RunFailedError",
        "UsageError",
    ),
    "harness.android.app_folder": ("Deployed",),
    "harness.virtual.phones": (
        "create_virtual_phone",
        "delete_virtual_phone",
        "start_virtual_phone",
        "stop_virtual_phone",
        "virtual_phones",
    ),
    "pipeline.plan": ("Choices",),
}
# What a name of the outside is called inside; `mobilepack.report` and `.mil` are packages.
_RENAMED = {
    "create_virtual_phone": "create",
    "delete_virtual_phone": "delete",
    "mil_diff": "diff",
    "mil_run": "run",
    "mil_show": "show",
    "start_virtual_phone": "start",
    "stop_virtual_phone": "stop",
    "virtual_phones": "phones",
    "write_report": "report",
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "AdbServer",
    "Alternated",
    "AppOptions",
    "BenchOptions",
    "BenchResult",
    "BuildError",
    "BuildOptions",
    "Built",
    "CampaignOptions",
    "CampaignResult",
    "Chat",
    "ChatOptions",
    "CheckFailedError",
    "Choices",
    "Comparison",
    "Deployed",
    "DeviceFiles",
    "DeviceFilesOptions",
    "Diagnosis",
    "DiffView",
    "EvalOptions",
    "EvalResult",
    "Exports",
    "Gate",
    "Inventory",
    "Invocation",
    "Ladder",
    "LintView",
    "MissingError",
    "MobilepackError",
    "Package",
    "Prediction",
    "ReportResult",
    "RunFailedError",
    "UsageError",
    "VerifyOptions",
    "VerifyResult",
    "WrittenApp",
    "android_app",
    "bench",
    "bench_against",
    "build",
    "campaign",
    "compare",
    "create_virtual_phone",
    "delete_virtual_phone",
    "deploy",
    "device_files",
    "devices",
    "doctor",
    "evaluate",
    "explain",
    "harnesses",
    "inspect",
    "ios_app",
    "lint",
    "mil_diff",
    "mil_run",
    "mil_show",
    "open_package",
    "places",
    "plan",
    "read_campaign",
    "start_virtual_phone",
    "stop_virtual_phone",
    "targets",
    "verify",
    "virtual_phones",
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
