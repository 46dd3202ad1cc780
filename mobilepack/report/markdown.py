"""report.md: the same facts as the page, for a pull request or a job summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mobilepack.contract.bench import Bench, BenchTest, Statistics
from mobilepack.contract.evaluation import Evaluation, TaskResult
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.parity import Measured, Parity, ParityRow
from mobilepack.report.chosen import chosen, first
from mobilepack.report.findings import Finding
from mobilepack.report.losses import COLUMNS, cells
from mobilepack.report.runs import Runs

_SHOWN = ("rms_over_std", "cosine_min", "kl_max", "top1_agreement", "ppl_ratio")
_LEVELS = ("", "rung", "against", *(title for _, title in COLUMNS), "greedy", "task")
_MARKS = {"passed": "✅", "failed": "❌", "not run": "⏸️", "unreadable": "⚠️"}


def render_markdown(manifest: Manifest, runs: Runs, found: Sequence[Finding], version: str) -> str:
    """Return the summary; arguments as `render_html`."""
    plan = manifest.plan
    recipe = plan.recipe
    lines = [
        f"## {_text(plan.model.name)} for {_text(plan.target)}",
        "",
        f"{_text(plan.model.family)}, {manifest.parameters:,} parameters, {recipe.linear_text},"
        f" embedding {recipe.embedding}, KV cache {recipe.kv_cache},"
        f" up to {plan.max_seq_len} tokens; build `{manifest.plan_id[:16]}` of"
        f" {_text(plan.model.source)}.",
        "",
        *(f"- {_mark(item.status)} {_text(item.text)}" for item in chosen(found)),
        *_rest(found),
        "",
    ]
    for parity in runs.parity:
        lines += _parity(parity)
    for bench in runs.bench:
        lines += _bench(bench)
    for evaluation in runs.evaluations:
        lines += _evaluation(evaluation)
    return "\n".join([*lines, f"<sub>mobilepack {_text(version)}</sub>", ""])


def _parity(parity: Parity) -> list[str]:
    rows = [
        (_mark(row.status), row.rung, row.against or "", row.check, _values(row))
        for row in chosen(parity.rows)
    ]
    head = ("", "rung", "against", "check", "values (limit)")
    title = f"### Parity on {_text(parity.device)}, {_text(parity.utc)}"
    fall = [*_table(_LEVELS, _levels(parity)), ""] if parity.levels else []
    return [title, "", *fall, *_table(head, rows), *_rest(parity.rows), ""]


def _levels(parity: Parity) -> Iterator[tuple[str, ...]]:
    """Yield the waterfall: each level against the one before it and against eager fp32."""
    for level in parity.levels:
        tail = [f"{s.count}/{s.of}" if s else "" for s in (level.greedy, level.task)]
        name = " ".join(text for text in (level.rung, level.where) if text)
        if not level.losses:
            yield _mark(level.status), name, level.reason, *[""] * len(COLUMNS), *tail
        for index, loss in enumerate(level.losses):
            values = [" ".join(t for t in (c.value, c.limit) if t) for c in cells(loss)]
            again = index > 0
            head = ("", "") if again else (_mark(level.status), name)
            yield *head, loss.against, *values, *(["", ""] if again else tail)


def _values(row: ParityRow) -> str:
    shown = [_metric(m) for m in row.metrics if m.limit is not None or m.name in _SHOWN]
    return ", ".join(shown) or row.reason


def _metric(metric: Measured) -> str:
    text = f"{metric.name} {metric.value:.3g}"
    if metric.limit is None:
        return text
    return f"{text} ({'≤' if metric.better == 'lower' else '≥'} {metric.limit:.3g})"


def _bench(bench: Bench) -> list[str]:
    head = ("test", "tok/s mean ± sd", "median [95 %]", "TTFT ms", "per token ms", "verdict")
    rows = [_test(test) for test in first(bench.tests)]
    stands_for = "may stand for a phone" if bench.representative else "not a phone's numbers"
    return [
        f"### Speed on {_text(bench.device)}, {_text(bench.utc)}",
        "",
        f"{_text(bench.environment.cpu)}, {bench.protocol.threads} threads,"
        f" {bench.protocol.warmups} warm-ups, {bench.protocol.repetitions} repetitions;"
        f" representative: {str(bench.representative).lower()} ({stands_for}).",
        "",
        *_table(head, rows),
        *_rest(bench.tests),
        "",
        f"Load {_loads(bench.load_ms)} ms{_cached(bench)}; memory over the empty process:"
        f" {bench.loaded_bytes / 1e6:.1f} MB after loading,"
        f" {bench.peak_over_base_bytes / 1e6:.1f} MB at the peak.",
        "",
    ]


def _loads(samples: tuple[float, ...]) -> str:
    return ", ".join(f"{load:.0f}" for load in samples)


def _cached(bench: Bench) -> str:
    loads = _loads(bench.cached_load_ms)
    return f", {loads} ms from kept packed weights" if loads else ""


def _test(test: BenchTest) -> tuple[str, ...]:
    speed = test.round_tok_per_s
    return (
        test.test,
        f"{test.avg_ts:.1f} ± {test.stddev_ts:.1f}",
        f"{speed.median:.1f} [{speed.low:.1f}, {speed.high:.1f}]",
        _milliseconds(test.ttft_ms),
        _milliseconds(test.decode_token_ms),
        f"{test.trust}: {test.trust_reason}",
    )


def _evaluation(evaluation: Evaluation) -> list[str]:
    rows = [row for task in chosen(evaluation.tasks) for row in _task(task)]
    title = f"### Task accuracy on {_text(evaluation.device)}, {_text(evaluation.utc)}"
    head = ("task", "metric", "value ± standard error", "questions")
    return [title, "", *_table(head, rows), *_rest(evaluation.tasks), ""]


def _task(task: TaskResult) -> Iterator[tuple[str, ...]]:
    if task.status != "ran":
        yield task.task, f"{task.status}: {task.reason}", "", ""
    for metric in task.metrics:
        error = "" if metric.stderr is None else f" ± {metric.stderr:.4g}"
        yield task.task, metric.name, f"{metric.value:.4g}{error}", str(task.samples)


def _rest(rows: Sequence[object]) -> list[str]:
    """Say how much is left out; a comment on GitHub holds 65,536 characters."""
    left = len(rows) - len(first(rows))
    return ["", f"{left:,} more are left out; report.html carries all."] if left else []


def _milliseconds(values: Statistics | None) -> str:
    return "–" if values is None else f"{values.median:.2f} (p90 {values.p90:.2f})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [list(head), ["---"] * len(head), *([_text(cell) for cell in row] for row in rows)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _mark(status: str) -> str:
    return f"{_MARKS.get(status, '·')} {status}"


def _text(value: str) -> str:
    """Return text that Markdown and HTML leave as it is, on one line."""
    flat = " ".join(value.split())
    for character in "\\`*_|[]#":
        flat = flat.replace(character, "\\" + character)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
