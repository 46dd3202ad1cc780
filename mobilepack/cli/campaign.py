"""`mobilepack campaign`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, render
from mobilepack.cli.device_options import adb_options
from mobilepack.cli.progress import steps
from mobilepack.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from mobilepack.commands.campaign import CampaignResult
    from mobilepack.contract.campaign import CampaignFile, CellKey
    from mobilepack.harness.base import Harness


@click.command(
    epilog="""\b
Example
  mobilepack campaign --survey -o out/survey --only embedded --only SmolLM-135M
  mobilepack campaign nightly.toml -o out/nightly
"""
)
@click.argument(
    "file", required=False, type=click.Path(dir_okay=False, path_type=Path), metavar="[FILE]"
)
@click.option("--survey", is_flag=True, help="Run the survey's own campaign instead of a file.")
@click.option(
    "-o",
    "--output-dir",
    "out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/campaign"),
    show_default=True,
    metavar="FOLDER",
    help="Where cells, tables and pictures go; what is there is not measured again.",
)
@click.option(
    "--only", multiple=True, metavar="NAME", help="Only this model; may be given several times."
)
@click.option(
    "--keep-packages",
    is_flag=True,
    help="Keep packages and random checkpoints in the cache; they are made again otherwise.",
)
@click.option("--shapes", is_flag=True, help="List the published shapes and end.")
@click.option("--dry-run", is_flag=True, help="List the cells and end.")
@adb_options
@options.json_option
def command(  # noqa: PLR0913 - one parameter per option
    file: Path | None,
    survey: bool,
    out: Path,
    only: tuple[str, ...],
    keep_packages: bool,
    shapes: bool,
    dry_run: bool,
    adb_host: str,
    adb_port: int,
    as_json: bool,
) -> int:
    """Measure models by recipes by prompt lengths by devices, in the survey's views.

    FILE is a TOML file (docs/tutorials/campaign.md). Every cell is written when it is measured, so
    a campaign that was stopped goes on where it was. Models named by a published shape get random
    weights: speed and memory do not depend on their values.
    """
    from mobilepack.commands.campaign import SURVEY, CampaignOptions, campaign, read_campaign
    from mobilepack.commands.devices import AdbServer, harnesses
    from mobilepack.report.campaign import write_views

    if shapes:
        return _list_shapes(as_json)
    if survey == (file is not None):
        raise UsageError(
            "no-campaign" if file is None else "two-campaigns",
            "cannot tell which campaign to run",
            why="there is neither FILE nor --survey" if file is None else "both were given",
            next="give one of them",
        )
    asked = read_campaign(SURVEY if file is None else file)
    if dry_run:
        return _list_cells(asked, as_json)
    server = AdbServer(adb_host, adb_port, 0.0)

    def harness_of(device: str) -> Harness:
        return harnesses((device,), server, purpose="campaign", count_instructions=True)[0]

    with steps("campaign", quiet=as_json) as progress:
        result = campaign(
            asked, CampaignOptions(out, only, keep_packages), harness_of, on_cell=progress.step
        )
    words = ["mobilepack", *(shlex.quote(word) for word in sys.argv[1:] if word != "--json")]
    page = write_views(asked, result.cells, out, " ".join(words))
    _tell(result, page, as_json)
    return ExitCode.RUN_FAILED if result.failed else ExitCode.OK


def _tell(result: CampaignResult, page: Path, as_json: bool) -> None:
    if as_json:
        cells = [cell.model_dump(mode="json", by_alias=True) for cell in result.cells]
        render.document("campaign", {"page": str(page), "cells": cells})
        return
    for cell in result.failed:
        key = cell.key
        render.line(f"not measured: {key.model}, {key.recipe}, {key.device}: {cell.failure}")
    kept = len(result.cells) - result.measured
    render.line(f"{result.measured} cells measured, {kept} were there, {len(result.failed)} failed")
    render.line(f"page: {page}")


def _list_shapes(as_json: bool) -> int:
    from mobilepack.models.zoo.published import published_config, published_names
    from mobilepack.models.zoo.random_checkpoint import stored_tensors

    rows = {
        name: sum(tensor.numbers for tensor in stored_tensors(published_config(name)))
        for name in published_names()
    }
    if as_json:
        render.document("shapes", {"parameters": rows})
    else:
        for name, numbers in rows.items():
            render.line(f"{name:16} {numbers / 1e6:8.1f} M parameters")
    return ExitCode.OK


def _list_cells(asked: CampaignFile, as_json: bool) -> int:
    from mobilepack.commands.campaign import keys_of

    keys = keys_of(asked)
    if as_json:
        render.document("campaign-plan", {"cells": [key.model_dump(mode="json") for key in keys]})
    else:
        for key in keys:
            render.line(_row(key))
        render.line(f"{len(keys)} cells")
    return ExitCode.OK


def _row(key: CellKey) -> str:
    prompts = ", ".join(map(str, key.prompt_tokens))
    depths = ", ".join(map(str, key.depths))
    tests = f"prompts {prompts}; {key.generate_tokens} generated; depths {depths}"
    return f"{key.model}, {key.recipe}, {key.device}: {tests}"
