"""`mobilepack targets`."""

from __future__ import annotations

import click

from mobilepack.cli import options, render


@click.command(
    epilog="""\b
Example
  mobilepack targets
  mobilepack targets --json
"""
)
@options.json_option
def command(as_json: bool) -> None:
    """List the targets that packages can be built for.

    A target is a TOML file; `mobilepack build --target ./mine.toml` takes one of your own.
    """
    from mobilepack.commands.targets import targets

    found = targets()
    if as_json:
        render.document("targets", {"targets": render.plain(found)})
        return
    render.table(
        ("target", "backend", "recipe", "for", "runs on"),
        [
            (
                target.name,
                target.backend,
                target.recipe.linear_text,
                target.title,
                ", ".join(target.runs_on),
            )
            for target in found
        ],
    )
