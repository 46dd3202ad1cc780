"""`mobilepack eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, packages, render
from mobilepack.cli.progress import steps
from mobilepack.errors import ExitCode

if TYPE_CHECKING:
    from mobilepack.commands.evaluate import EvalResult
    from mobilepack.contract.evaluation import TaskMetric, TaskResult

OWN = "pocket"


@click.command(
    epilog="""\b
Example
  mobilepack eval
  mobilepack eval out/mine/xnnpack --tasks hellaswag,arc_easy --limit 100 --json -o eval.json
  mobilepack eval --tasks pocket,mmlu --data datasets --offline
"""
)
@packages.package_argument
@click.option(
    "--tasks",
    "names",
    default=OWN,
    show_default=True,
    metavar="NAMES",
    help="Tasks, separated by commas: pocket is the project's own set and needs nothing; every"
    " other name is lm-eval's, which mobilepack[eval] brings.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Questions per task at most (per kind of question for pocket). Default: all.",
)
@click.option(
    "--num-fewshot",
    type=click.IntRange(min=0),
    metavar="N",
    help="Worked examples before each question of lm-eval. Default: the task's own number.",
)
@click.option(
    "--chat-template", is_flag=True, help="Put lm-eval's questions through the chat template."
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Data sets by their hub name, for example FOLDER/Rowan/hellaswag; looked at first.",
)
@click.option(
    "--include-path",
    "include",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="More task definitions in lm-eval's YAML.",
)
@click.option("--offline", is_flag=True, help="Use only data that is on this machine already.")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the result here too; it always goes to the package's runs/ folder.",
)
@options.threads_option
@options.timeout_option(600)
@options.json_option
def command(  # noqa: PLR0913 - one parameter per option
    package: Path | None,
    names: str,
    limit: int | None,
    num_fewshot: int | None,
    chat_template: bool,
    data: Path | None,
    include: Path | None,
    offline: bool,
    out: Path | None,
    threads: int,
    timeout_s: float,
    as_json: bool,
) -> int:
    """Measure how well a package does its tasks.

    Questions go through the packaged program on this machine, not through PyTorch. A task whose
    data is not at hand is a row that says `not run` and why, and the exit code is then 5.
    """
    from mobilepack.commands.evaluate import EvalOptions, evaluate
    from mobilepack.commands.lm_tasks import LmEvalOptions

    asked = EvalOptions(
        tasks=_split(names),
        lm_eval=LmEvalOptions(limit, num_fewshot, chat_template, data, include, offline),
        threads=threads,
        timeout_s=timeout_s,
        out=out,
    )
    chosen = packages.existing_or_built(package, quiet=as_json)
    with steps("eval", quiet=as_json) as progress:
        result = evaluate(
            chosen, asked, on_share=lambda what, share: progress.step(what, share, 1.0)
        )
    if as_json:
        render.document("eval", render.plain(result))
        missing = any(row.status == "not run" for row in result.evaluation.tasks)
        return ExitCode.MISSING if missing else ExitCode.OK
    print_result(result)
    result.raise_if_missing()
    return ExitCode.OK


def _split(names: str) -> tuple[str, ...]:
    found = tuple(name.strip() for name in names.split(",") if name.strip())
    if not found:
        raise click.BadParameter("name at least one task", param_hint="--tasks")
    return found


def print_result(result: EvalResult) -> None:
    """Print a row per figure, then what could not be run."""
    evaluation = result.evaluation
    rows = [_row(task, metric) for task in evaluation.tasks for metric in task.metrics]
    if rows:
        header = ("task", "version", "filter", "n-shot", "metric", "", "value", "stderr", "samples")
        render.table(header, rows)
    for task in evaluation.tasks:
        if task.status == "not run":
            render.line(f"{render.status('not run')}  {task.task}: {task.reason}")
    render.line(
        f"{evaluation.fed_tokens:,} tokens fed in {evaluation.wall_s:.1f} s;"
        f" {evaluation.recipe}; up to {evaluation.max_seq_len} tokens"
    )
    render.line(f"results: {result.folder / 'eval.json'}")


def _row(task: TaskResult, metric: TaskMetric) -> tuple[render.Cell, ...]:
    return (
        task.task,
        task.version or "",
        metric.filter,
        task.num_fewshot,
        metric.name,
        "↑" if metric.higher_is_better else "↓",
        f"{metric.value:.4f}",
        "" if metric.stderr is None else f"± {metric.stderr:.4f}",
        task.samples,
    )
