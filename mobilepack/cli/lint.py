"""`mobilepack lint`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, render
from mobilepack.errors import ExitCode

if TYPE_CHECKING:
    from mobilepack.commands.lint import LintView, Verdict

LEVELS = ("error", "warning", "note")  # those of mil/lint/rule.py; a test compares them
MOST_PLACES = 3


@click.command(
    epilog="""\b
Example
  mobilepack lint Model.mlpackage
  mobilepack lint model.pte --sarif lint.sarif --fail-on error
  mobilepack lint Model.mlpackage --placement placement.json --min-ane-share 0.95
"""
)
@click.argument("program", metavar="X", type=click.Path(path_type=Path))
@click.option("--function", metavar="NAME", help="Only this function. Default: all.")
@click.option("--all", "everything", is_flag=True, help="List every place of every finding.")
@click.option(
    "--sarif",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the findings as SARIF 2.1.0.",
)
@click.option(
    "--placement",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What a device's MLComputePlan says, as placement.json (docs/mil.md), or the "
    "run_result.json of a run on it.",
)
@click.option(
    "--min-ane-share",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Fail unless the device runs this share on the Neural Engine; needs --placement.",
)
@click.option(
    "--fail-on",
    type=options.Named(LEVELS),
    help="Exit with 3 when there are findings of this level or worse.",
)
@options.json_option
def command(  # noqa: PLR0913 - one parameter per option
    program: Path,
    function: str | None,
    everything: bool,
    sarif: Path | None,
    placement: Path | None,
    min_ane_share: float | None,
    fail_on: str | None,
    as_json: bool,
) -> int:
    """Find what keeps a Core ML program off the Neural Engine.

    X is an .mlpackage or a .pte with Core ML delegates. This is a lint: a clean program may still
    run elsewhere, and only a device can say where; --placement merges what one said.
    """
    from mobilepack.commands.lint import judge, lint, write_sarif

    view = lint(program, function=function, placement=placement)
    verdict = judge(view, min_ane_share=min_ane_share, fail_on=fail_on)
    if sarif is not None:
        write_sarif(view, sarif)
    if as_json:
        render.document("lint", _document(view, verdict))
    else:
        print_lint(view, everything=everything)
        print_verdict(verdict)
    return ExitCode.OK if verdict.passed else ExitCode.CHECK_FAILED


def _document(view: LintView, verdict: Verdict) -> dict[str, object]:
    rules = [
        {key: getattr(item, key) for key in ("id", "name", "level", "why", "remedy", "source")}
        for item in view.rules
    ]
    return {
        "path": str(view.path),
        "counts": {level: view.count(level) for level in LEVELS},
        "findings": render.plain(view.findings),
        "clean": list(view.clean),
        "rules": rules,
        "placement": render.plain(view.placement),
        "verdict": render.plain(verdict),
    }


def print_lint(view: LintView, *, everything: bool) -> None:
    """Print findings by rule: where, why, remedy, source."""
    rules = {item.id: item for item in view.rules}
    for identifier, group in groupby(view.findings, key=lambda item: item.rule):
        rule, places = rules[identifier], list(group)
        render.line(f"{rule.id} {rule.name} ({rule.level}), {len(places)} times")
        shown = places if everything else places[:MOST_PLACES]
        for place in shown:
            render.line(f"  {place.function}: {place.operator} {place.name}: {place.detail}")
        if len(places) > len(shown):
            render.line(f"  and {len(places) - len(shown)} more (--all lists them)")
        render.line(f"  why     {rule.why}")
        render.line(f"  remedy  {rule.remedy}")
        render.line(f"  source  {rule.source}")
        render.line()
    counts = ", ".join(f"{view.count(level)} {level}s" for level in LEVELS)
    render.line(f"{counts}; {len(view.clean)} of {len(view.rules)} rules found nothing")
    if view.placement is None:
        render.line("a lint, not a placement: only a device says where operators run")
    else:
        print_placement(view)


def print_placement(view: LintView) -> None:
    """Print what a device says."""
    found = view.placement
    if found is None:
        return
    render.line()
    render.line(f"{found.device}, {found.system}: {found.ane_share:.1%} on the Neural Engine")
    for name, count in found.elsewhere.items():
        render.line(f"  {name} ×{count}")
    away = sum(found.elsewhere.values())
    if away:
        render.line(f"  rules point at {found.explained} of these {away} operators")
    if found.unfounded:
        render.line(f"  rules point at {found.unfounded} that do run on the Neural Engine")


def print_verdict(verdict: Verdict) -> None:
    """Print the gates that were asked for."""
    for gate in verdict.gates:
        render.line(f"{render.status('passed' if gate.passed else 'failed')}  {gate.text}")
