"""`mobilepack plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mobilepack.cli import options, render
from mobilepack.cli.build_options import asked_for, build_options

if TYPE_CHECKING:
    from mobilepack.commands.plan import Prediction


@click.command(
    epilog="""\b
Example
  mobilepack plan
  mobilepack plan path/to/checkpoint --max-seq-len 2048 --qembedding 8w
  mobilepack plan path/to/checkpoint --json
"""
)
@build_options
@options.json_option
def command(as_json: bool, **values: Any) -> None:
    """Predict file size, memory and build time before building.

    Reads the checkpoint's configuration and headers only. Sizes are computed from the shapes; the
    build time is an estimate, and its basis is printed with it.
    """
    from mobilepack.commands.plan import plan

    predictions = plan(asked_for(values))
    if as_json:
        render.document("plan", {"predictions": render.plain(predictions)})
        return
    for prediction in predictions:
        print_prediction(prediction)


def print_prediction(found: Prediction) -> None:
    """Print one prediction."""
    recipe = found.recipe
    group = f" group {recipe.group_size}" if recipe.group_size else ""
    render.line(
        f"{render.model_name(found.source)} ({found.family}, {found.parameters:,} parameters)"
        f" for {found.target}"
    )
    render.line(
        f"linear {recipe.linear}{group}, embedding {recipe.embedding}, KV cache {recipe.kv_cache},"
        f" {found.max_seq_len} positions, {found.prefill_chunk} tokens per call"
    )
    render.line()
    rows = [(part.name, part.parameters or None, part.bytes) for part in found.components]
    rows.append(("program", None, found.file_bytes))
    render.table(("component", "parameters", "bytes"), rows)
    render.line()
    render.line(f"file         {render.size(found.file_bytes)}")
    render.line(
        f"KV cache     {render.size(found.kv_cache_bytes)}"
        f" ({found.kv_bytes_per_token:,} bytes per token)"
    )
    render.line(f"activations  {render.size(found.activations_bytes)} in the longest call")
    render.line(
        f"memory       {render.size(found.ram_bytes)} while it runs, over the empty process"
    )
    render.line(f"build        about {found.build_cpu_s:.0f} s of CPU ({found.build_basis})")
