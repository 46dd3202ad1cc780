"""The root command: names the verbs, and imports one only when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import cast

import click

from mobilepack.version import __version__

DEBUG_VARIABLE = "MOBILEPACK_DEBUG"

# Verb and one line, in the order a newcomer meets them; `mobilepack/cli/<verb>.py` holds `command`.
VERBS: dict[str, str] = {
    "build": "Turn a checkpoint into one package per target.",
    "verify": "Prove that a package computes what PyTorch computes.",
    "bench": "Time a package: prompt processing, generation, load, memory.",
    "campaign": "Measure models by recipes by prompt lengths by devices, in the survey's views.",
    "eval": "Measure how well a package does its tasks.",
    "chat": "Talk to a package on this machine.",
    "report": "Write the report of a package's checks and timings.",
    "compare": "Show what changed from one package, run or campaign to another, and gate it.",
    "inspect": "Show what is in a checkpoint or a package.",
    "mil": "Run, show and compare Core ML programs on this machine.",
    "lint": "Find what keeps a Core ML program off the Neural Engine.",
    "plan": "Predict file size, memory and build time before building.",
    "app": "Write the sources of a demo app with a package wired in.",
    "deploy": "Put a package into the demo app on a phone, without building the app again.",
    "device-files": "List what must be on the phone beside a package, and check or copy it.",
    "targets": "List the targets that packages can be built for.",
    "devices": "List what packages can run on: this machine, phones, virtual phones, simulators.",
    "virtual": "Make and run virtual ARM64 phones on this machine.",
    "ios": "Write down what Apple's tools answer on this Mac, for tests elsewhere.",
    "doctor": "Say what works on this machine and what is missing.",
}

_MODULES = {"app": "app_project"}  # this module is cli/app.py

EPILOG = """\b
Begin with
  mobilepack build            package the embedded model for xnnpack
  mobilepack verify           check the package against eager PyTorch
  mobilepack chat             talk to it
Your own model: mobilepack build PATH_OR_HUB_ID --output-dir out/mine
"""


class LazyGroup(click.Group):
    """A group that knows its verbs' names and imports a verb's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help page."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one verb, or None."""
        if cmd_name not in VERBS:
            return None
        name = _MODULES.get(cmd_name, cmd_name.replace("-", "_"))
        module = importlib.import_module(f"mobilepack.cli.{name}")
        return cast("click.Command", module.command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(
    cls=LazyGroup,
    name="mobilepack",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="mobilepack %(version)s")
@click.pass_context
def root(ctx: click.Context) -> None:
    """Build small language models for phones and prove that they work there.

    MODEL is a Hugging Face checkpoint folder, a GGUF file or a hub id; without one every verb takes
    the small model that ships inside mobilepack.
    """
    if os.environ.get("NO_COLOR"):  # https://no-color.org; Click does not look at it by itself
        ctx.color = False
    if not os.environ.get(DEBUG_VARIABLE):
        quiet_libraries()


def quiet_libraries() -> None:
    """Keep remarks that torch and torchao log while they are imported off stderr.

    They concern their developers (CUDA kernels that a CPU build lacks, enum registration). What
    fails raises. MOBILEPACK_DEBUG=1 shows them.
    """
    import logging

    logging.getLogger().addHandler(logging.NullHandler())  # else Python prints them itself
    os.environ.setdefault("TORCH_LOGS", "-all")  # torch 2.13, torch/_logging: errors only


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code; failures are raised.

    Raises:
        MobilepackError: What a user can cause or see.
        click.ClickException: The command line itself is wrong.
        KeyboardInterrupt: Interrupted.
    """
    try:
        # Not `root.main`: it turns a closed pipe into exit code 1, which here means a bug.
        with root.make_context("mobilepack", list(arguments) or ["--help"]) as context:
            result = root.invoke(context)
    except click.exceptions.Exit as end:
        result = end.exit_code
    sys.stdout.flush()  # a closed pipe shows here, where it can be handled, not at exit
    return int(result or 0)
