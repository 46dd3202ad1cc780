"""Print results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.record import BuildResult, Document, RunResult

_MB = 1e6
_RUN_COLUMNS = (
    ("pf128 tok/s", "prefill_128_tok_per_s", 1.0),
    ("pf512 tok/s", "prefill_512_tok_per_s", 1.0),
    ("decode tok/s", "decode_short_tok_per_s", 1.0),
    ("decode @512 tok/s", "decode_long_tok_per_s", 1.0),
    ("load ms", "load_ms", 1.0),
    ("load + first ms", "load_and_first_eval_ms", 1.0),
    ("RSS MB", "rss_over_base_bytes", _MB),
)


def render(document: Document) -> str:
    """Render everything a document holds."""
    parts = []
    if document.build:
        parts.append(build_table(document.build))
    parts += [run_table(result) for result in document.run]
    return "\n\n".join(parts)


def build_table(results: Iterable[BuildResult]) -> str:
    """Render builds, one row each; what was not built says why."""
    header = ("shape", "peer", "wall s", "CPU s", "peak RSS MB", "peak anon MB", "file MB", "note")
    return _table(header, [_build_row(result) for result in results])


def run_table(result: RunResult) -> str:
    """Render one shape: medians per peer, then the subject's ratio to each peer."""
    header = (result.shape, *(title for title, _, _ in _RUN_COLUMNS))
    rows = [
        (one.peer, *(f"{one.median[key] / unit:.1f}" for _, key, unit in _RUN_COLUMNS))
        for one in result.summaries
    ]
    for peer, ratios in result.ratios.items():
        cells = [
            f"{ratios[key].of_medians:.2f} ({ratios[key].smallest:.2f}-{ratios[key].largest:.2f})"
            if key in ratios
            else "not run"
            for _, key, _ in _RUN_COLUMNS
        ]
        rows.append((f"{result.subject} / {peer}", *cells))
    for peer, why in result.not_run.items():
        rows.append((peer, f"not run: {_first_line(why)}", *[""] * (len(_RUN_COLUMNS) - 1)))
    return _table(header, rows)


def _build_row(result: BuildResult) -> tuple[str, ...]:
    if result.status != "done":
        note = f"{result.status}: {_first_line(result.why)}"
        return (result.shape, result.peer, *["-"] * 5, note)
    return (
        result.shape,
        result.peer,
        f"{result.wall_s:.1f}",
        f"{result.cpu_s:.1f}",
        f"{result.peak_rss_bytes / _MB:.0f}",
        f"{result.peak_anonymous_bytes / _MB:.0f}",
        f"{result.file_bytes / _MB:.1f}",
        "",
    )


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
