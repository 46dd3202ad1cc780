"""`mobilepack build`."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mobilepack.cli import options, render
from mobilepack.cli.build_options import asked_for, build_options
from mobilepack.cli.compression import compression_text
from mobilepack.cli.progress import steps

if TYPE_CHECKING:
    from mobilepack.commands.build import BuildOptions, Built


@click.command(
    epilog="""\b
Example
  mobilepack build
  mobilepack build path/to/checkpoint --target xnnpack -o out/mine
  mobilepack build HuggingFaceTB/SmolLM2-135M-Instruct --qembedding 8w --max-seq-len 2048
  mobilepack build --calibrate gptq --prune layers:5
  mobilepack build --dry-run --json
"""
)
@build_options
@options.output_option
@click.option("--force", is_flag=True, help="Build even if the package is up to date.")
@click.option(
    "--dry-run", is_flag=True, help="Print the plan and its predicted cost; write nothing."
)
@options.json_option
def command(out: Path, force: bool, dry_run: bool, as_json: bool, **values: Any) -> None:
    """Turn a checkpoint into one package per target.

    MODEL is a Hugging Face checkpoint folder, a GGUF file or a hub id; without one, the embedded
    model. Packages go to <output-dir>/<target>/ and are complete or not there. Building the same
    thing again does nothing.
    """
    asked = replace(asked_for(values, out), force=force)
    if dry_run:
        print_plans(asked, as_json)
        return
    start = time.monotonic()
    built = run_build(asked, quiet=as_json)
    if as_json:
        render.document("build", {"packages": render.plain(built)})
        return
    for package in built:
        print_package(package)
    render.line(f"took {time.monotonic() - start:.1f} s")


def run_build(asked: BuildOptions, *, quiet: bool) -> tuple[Built, ...]:
    """Build with progress on stderr unless quiet; a folder that is made and stays empty goes."""
    from mobilepack.commands.build import build

    fresh = not asked.out.exists()
    options.make_folder(asked.out)
    try:
        with steps("build", quiet=quiet) as progress:
            return build(asked, on_stage=lambda stage, share: progress.step(stage, share, 1.0))
    except BaseException:
        if fresh:
            with suppress(OSError):  # it is not empty
                asked.out.rmdir()
        raise


def build_embedded(out: Path, *, quiet: bool) -> Path:
    """Build the embedded model for the default target and return its package."""
    from mobilepack.commands.build import BuildOptions

    (built,) = run_build(BuildOptions(out=out), quiet=quiet)
    return built.folder


def print_plans(asked: BuildOptions, as_json: bool) -> None:
    """Print what would be built, with its predicted cost."""
    from mobilepack.cli.plan import print_prediction
    from mobilepack.commands.plan import plan

    predictions = plan(asked)
    if as_json:
        render.document("plan", {"predictions": render.plain(predictions)})
        return
    for prediction in predictions:
        render.line(f"would write {asked.out / prediction.target}/")
        print_prediction(prediction)


def print_package(built: Built) -> None:
    """Print what a package is, where it is and what it cost."""
    from mobilepack.contract.package import Package
    from mobilepack.soc import load_soc

    manifest, plan = built.manifest, built.manifest.plan
    recipe = plan.recipe
    group = f" group {recipe.group_size}" if recipe.group_size else ""
    program = Package(built.folder, manifest).program_bytes
    state = "up to date" if built.up_to_date else "built"
    render.line(f"{state}  {built.folder}")
    render.line(
        f"  {render.model_name(plan.model.source)}: {plan.model.family},"
        f" {manifest.parameters:,} parameters;"
        f" linear {recipe.linear}{group}, embedding {recipe.embedding}, KV cache {recipe.kv_cache}"
    )
    render.line(
        f"  program {render.size(program)}, {manifest.quantised_share:.1%} of weights quantised,"
        f" up to {plan.max_seq_len} tokens"
    )
    if plan.soc_model:
        render.line(
            f"  compiled for {load_soc(plan.soc_model).title} ({plan.soc_model}) by {plan.backend}"
            f" {manifest.runtime_version}; for another phone: --soc-model"
            ' "$(adb shell getprop ro.soc.model)"'
        )
    if compressed := compression_text(manifest):
        render.line(f"  compressed: {compressed}")
    placement = manifest.placement
    operators = placement.delegated_operators + placement.fallback_operators
    render.line(
        f"  {placement.delegated_operators} of {operators} operators in {plan.backend}, the rest in"
        f" {len(placement.fallback)} kernels outside it (`mobilepack inspect` names them)"
    )
    if not built.up_to_date:
        costs = [f"{stage.name} {stage.wall_s:.1f} s" for stage in manifest.stages]
        render.line(f"  stages: {', '.join(costs)}")
