"""eval: measure how well a package does its tasks, through its program on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from mobilepack.commands.answering import AnsweringModel, answering
from mobilepack.commands.bench_record import recipe_text
from mobilepack.commands.lm_tasks import LmEval, LmEvalOptions
from mobilepack.commands.pocket import NAME as POCKET
from mobilepack.commands.pocket import run_pocket
from mobilepack.contract.base import write_atomically
from mobilepack.contract.evaluation import Evaluation, TaskResult
from mobilepack.contract.package import Package, open_package
from mobilepack.contract.run_folder import new_run_folder
from mobilepack.errors import MissingError, UsageError

_LIBRARIES = ("mobilepack", "executorch", "tokenizers", "lm-eval", "datasets")
OnShare = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """Options of `mobilepack eval`.

    Attributes:
        tasks: Names; `pocket` is the project's own set, every other is lm-eval's.
        lm_eval: How lm-eval's tasks run; `limit` holds for `pocket` too.
        threads: 0 for one per physical core.
        timeout_s: Limit of the load and of each answer.
        out: One more place to write the result to.
    """

    tasks: tuple[str, ...] = (POCKET,)
    lm_eval: LmEvalOptions = field(default_factory=LmEvalOptions)
    threads: int = 0
    timeout_s: float = 600.0
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class EvalResult:
    """What `eval` measured; already written to `folder`.

    Attributes:
        folder: `<package>/runs/<device>/<utc>` with eval.json and log.txt.
    """

    evaluation: Evaluation
    folder: Path

    def raise_if_missing(self) -> None:
        """Raise `MissingError` (exit code 5) if a task that was asked for did not run."""
        rows = [row for row in self.evaluation.tasks if row.status == "not run"]
        if rows:
            more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
            raise MissingError(
                "task-not-run",
                f"the task {rows[0].task!r} was not run{more}",
                why=rows[0].reason,
                next="put its data where the reason says, or leave the task out",
            )


def evaluate(
    path: Path,
    options: EvalOptions = EvalOptions(),
    *,
    on_share: OnShare = lambda what, share: None,
) -> EvalResult:
    """Run tasks against a package's program and write the result.

    The caller prints `result.evaluation.tasks` and then calls `result.raise_if_missing()`.

    Raises:
        MissingError: There is no package, or lm-eval is needed and not installed.
        UsageError: The package is damaged, or a task has no such name.
        RunFailedError: The program failed.
    """
    package = open_package(path)
    asked = tuple(dict.fromkeys(options.tasks))
    others = [name for name in asked if name != POCKET]
    harness = LmEval(options.lm_eval) if others else None
    if harness is not None:
        harness.check(others)
    folder = new_run_folder(package.root, "host")
    threads, timeout_s = options.threads, options.timeout_s
    with answering(package, threads=threads, timeout_s=timeout_s, log=folder.log) as model:
        start = time.monotonic()
        rows = _rows(asked, harness, model, options, on_share)
        wall_s, fed = time.monotonic() - start, model.fed_tokens
    record = _record(package, options, asked, rows, (folder.utc, wall_s, fed))
    folder.write("eval.json", record)
    if options.out is not None:
        _write(options.out, record)
    return EvalResult(record, folder.path)


def _rows(
    asked: Sequence[str],
    harness: LmEval | None,
    model: AnsweringModel,
    options: EvalOptions,
    on_share: OnShare,
) -> tuple[TaskResult, ...]:
    rows: list[TaskResult] = []
    for name in asked:
        on_share(name, 0.0)
        if name == POCKET:
            rows += run_pocket(model, options.lm_eval.limit, on_share)
        elif harness is not None:
            rows += harness.run(name, model, on_share)
        on_share(name, 1.0)
    return tuple(rows)


def _record(
    package: Package,
    options: EvalOptions,
    asked: tuple[str, ...],
    rows: tuple[TaskResult, ...],
    run: tuple[str, float, int],
) -> Evaluation:
    manifest = package.manifest
    utc, wall_s, fed = run
    return Evaluation(
        plan_id=manifest.plan_id,
        target=manifest.plan.target,
        model=manifest.plan.model.name,
        recipe=recipe_text(manifest.plan.recipe),
        device="host",
        utc=utc,
        asked=asked,
        limit=options.lm_eval.limit,
        chat_template=options.lm_eval.chat_template,
        max_seq_len=manifest.plan.max_seq_len,
        fed_tokens=fed,
        wall_s=round(wall_s, 3),
        versions=_versions(any(name != POCKET for name in asked)),
        tasks=rows,
    )


def _versions(with_lm_eval: bool) -> dict[str, str]:
    names = _LIBRARIES if with_lm_eval else _LIBRARIES[:3]
    return {name: metadata.version(name) for name in names}


def _write(path: Path, record: Evaluation) -> None:
    try:
        write_atomically(path, record.to_json())
    except OSError as err:
        raise UsageError(
            "unwritable-file",
            f"cannot write {path}",
            why=str(err),
            next="choose a file you may write to with -o",
        ) from err
