"""report.html: one file without outside references and without scripts, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobilepack.contract.manifest import Manifest
from mobilepack.report import charts, losses
from mobilepack.report.attachments import attachments
from mobilepack.report.charts import Part, split
from mobilepack.report.chosen import chosen, first
from mobilepack.report.devices import Placed
from mobilepack.report.findings import Finding
from mobilepack.report.runs import Runs

TEMPLATE = Path(__file__).with_name("report.html.j2")


def render_html(
    manifest: Manifest,
    runs: Runs,
    found: Sequence[Finding],
    version: str,
    placed: Sequence[Placed] = (),
) -> str:
    """Return the page.

    Args:
        manifest: Of the package.
        runs: Its newest checks, timings and task accuracies.
        found: What they prove, see `findings`.
        version: Of mobilepack.
        placed: What devices said of a Core ML package.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": _size,
        "chosen": chosen,
        "first_rows": first,
        "waterfall": charts.waterfall,
        "strips": charts.strips,
        "conditions": charts.conditions,
        "lost": losses.cells,
    }
    template = environment.get_template(TEMPLATE.name)
    return template.render(
        m=manifest,
        runs=runs,
        found=found,
        version=version,
        memory=_memory(manifest),
        placed=_placed(manifest),
        devices=placed,
        lost_columns=losses.COLUMNS,
        attachments=tuple(attachments(runs)),
    )


def _memory(manifest: Manifest) -> tuple[Part, ...]:
    memory = manifest.memory
    return split(
        (
            ("parameters", memory.parameters_bytes),
            ("KV cache", memory.kv_cache_bytes),
            ("activations", memory.activations_bytes),
        )
    )


def _placed(manifest: Manifest) -> tuple[Part, ...]:
    placement = manifest.placement
    return split(
        (
            (f"inside {manifest.plan.backend}", placement.delegated_weight_bytes),
            ("outside it", placement.fallback_weight_bytes),
        )
    )


def _size(count: int) -> str:
    """Return bytes in MB."""
    return f"{count / 1e6:,.2f} MB"
