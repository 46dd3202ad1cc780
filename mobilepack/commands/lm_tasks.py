"""Run tasks of lm-eval by name, and say of each that cannot run why."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilepack.contract.evaluation import TaskMetric, TaskResult
from mobilepack.errors import MissingError, MobilepackError, UsageError, near_misses

if TYPE_CHECKING:
    from mobilepack.commands.answering import AnsweringModel

OnShare = Callable[[str, float], None]
_BOOTSTRAP = 1000  # resamplings behind a standard error that has no formula
_REASON = 300  # characters of a library's message that are kept


@dataclass(frozen=True, slots=True)
class LmEvalOptions:
    """How lm-eval's tasks run.

    Attributes:
        limit: Questions per task at most.
        num_fewshot: Worked examples before each question, None for the task's own number.
        chat_template: Put questions through the chat template.
        data: Folder of data sets by their hub name (`FOLDER/Rowan/hellaswag`), looked at before
            the cache and the hub.
        include: Folder of more task definitions (YAML), as lm-eval's `--include_path`.
        offline: Use only data on this machine.
    """

    limit: int | None = None
    num_fewshot: int | None = None
    chat_template: bool = False
    data: Path | None = None
    include: Path | None = None
    offline: bool = False


class LmEval:
    """lm-eval with its index of tasks; importing it takes seconds, so make one only if needed."""

    def __init__(self, options: LmEvalOptions) -> None:
        """Import lm-eval and index its tasks.

        Raises:
            MissingError: lm-eval is not installed.
            UsageError: A folder is not there.
        """
        _check(options)
        os.environ.setdefault("TQDM_DISABLE", "1")  # our own progress says what is done
        os.environ.setdefault("DISABLE_MULTIPROC", "1")  # lm-eval: no pool for its bootstrap
        if options.offline:
            os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        with contextlib.redirect_stdout(sys.stderr):
            from lm_eval.tasks import TaskManager

            include = None if options.include is None else str(options.include.resolve())
            self._manager = TaskManager(include_path=include)
        self._options = options

    def check(self, names: Sequence[str]) -> None:
        """Refuse names that lm-eval does not know.

        Raises:
            UsageError: With near misses.
        """
        known = list(self._manager.all_tasks)
        unknown = [name for name in names if name not in known]
        if unknown:
            hints = [f"{name!r}: {_near(name, known)}" for name in unknown]
            raise UsageError(
                "unknown-task",
                f"there is no task {', '.join(map(repr, unknown))}",
                why="; ".join(hints),
                next="`pocket` is our own; lm-eval's are listed by `lm-eval ls tasks`",
            )

    def run(self, name: str, model: AnsweringModel, on_share: OnShare) -> tuple[TaskResult, ...]:
        """Run one task or group; a row says `not run` where its data or a library is missing."""
        from lm_eval.evaluator import simple_evaluate

        from mobilepack.commands.lm_harness import PackagedLM

        options = self._options
        with contextlib.redirect_stdout(sys.stderr), _inside(options.data):
            try:
                found = simple_evaluate(
                    model=PackagedLM(model, lambda what, share: on_share(f"{name}: {what}", share)),
                    tasks=[name],
                    num_fewshot=options.num_fewshot,
                    limit=options.limit,
                    apply_chat_template=options.chat_template,
                    task_manager=self._manager,
                    log_samples=False,
                    bootstrap_iters=_BOOTSTRAP,
                )
            except MobilepackError as err:
                if not isinstance(err, UsageError):
                    raise  # the program failed: that is no property of the task
                return (_not_run(name, f"{err.what}: {err.why}; {err.next}"),)
            # Loading a task runs its data set's and its own code, which raise what they like.
            except Exception as err:
                return (_not_run(name, _cause(err, options)),)
        return tuple(_results(name, found))


def _check(options: LmEvalOptions) -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingError(
            "no-lm-eval",
            "cannot run lm-eval's tasks",
            why="lm-eval is not installed",
            next="pip install 'mobilepack[eval]', or leave --tasks out for the project's own",
        )
    for folder, option in ((options.data, "--data"), (options.include, "--include-path")):
        if folder is not None and not folder.is_dir():
            raise UsageError(
                "no-such-folder",
                f"cannot read the folder of {option}",
                why=f"there is no folder {folder}",
                next="check the path",
            )


def _near(name: str, known: list[str]) -> str:
    hint = near_misses(name, known)
    return hint if hint.startswith("did you mean") else "nothing has a similar name"


@contextlib.contextmanager
def _inside(folder: Path | None) -> Iterator[None]:
    """Work in a folder: `datasets` takes a relative path that exists before a name on the hub."""
    if folder is None:
        yield
        return
    with contextlib.chdir(folder):
        yield


def _not_run(name: str, reason: str) -> TaskResult:
    return TaskResult(task=name, status="not run", reason=reason)


def _cause(err: Exception, options: LmEvalOptions) -> str:
    text = " ".join(str(err).split())[:_REASON] or "no message"
    where = "--data, in datasets' cache" if options.data else "datasets' cache"
    if isinstance(err, ModuleNotFoundError):
        return f"{type(err).__name__}: {text}"
    reach = "" if options.offline else " or within reach"
    return f"{type(err).__name__}: {text} (its data must be in {where}{reach})"


def _results(asked: str, found: Mapping[str, Any]) -> Iterator[TaskResult]:
    """Yield what lm-eval found: the task, or a group and then its tasks."""
    names = [asked, *sorted(name for name in found["results"] if name != asked)]
    for name in names:
        row = found["results"].get(name, {})
        metrics = tuple(_metrics(row, found["higher_is_better"].get(name) or {}))
        counts = found["n-samples"].get(name, {})
        if metrics:
            yield TaskResult(
                task=name,
                status="ran",
                samples=int(counts.get("effective", row.get("sample_len", 0))),
                version=str(found["versions"].get(name, "")) or None,
                num_fewshot=int(found["n-shot"].get(name) or 0),
                metrics=metrics,
            )


def _metrics(row: Mapping[str, Any], better: Mapping[str, Any]) -> Iterator[TaskMetric]:
    for key, value in row.items():
        name, _, way = key.partition(",")
        if not way or name.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = row.get(f"{name}_stderr,{way}")
        yield TaskMetric(
            name=name,
            filter=way,
            value=float(value),
            stderr=float(stderr) if isinstance(stderr, int | float) else None,
            higher_is_better=bool(better.get(name, True)),
        )
