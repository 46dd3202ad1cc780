"""report.html: one file without outside references, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobilepack.contract.manifest import Manifest
from mobilepack.report.findings import Finding
from mobilepack.report.runs import Runs

TEMPLATE = Path(__file__).with_name("report.html.j2")


def render_html(manifest: Manifest, runs: Runs, found: Sequence[Finding], version: str) -> str:
    """Return the page.

    Args:
        manifest: Of the package.
        runs: Its newest checks and timings.
        found: What they prove, see `findings`.
        version: Of mobilepack.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = _size
    template = environment.get_template(TEMPLATE.name)
    return template.render(m=manifest, runs=runs, found=found, version=version)


def _size(count: int) -> str:
    """Return bytes in MB with the exact number behind it."""
    return f"{count / 1e6:,.2f} MB"
