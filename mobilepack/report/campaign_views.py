"""The survey's views of a campaign: each study as a table and a picture."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilepack.contract.campaign import Cell, Study, StudyKind
from mobilepack.contract.profile import Phase
from mobilepack.report.campaign_cells import (
    first_test,
    measured_cells,
    name_of,
    peak_text,
    per_token,
    stat_text,
    table_lines,
    tests_of,
    verdict_of,
)
from mobilepack.report.plots import Bar, Line, bars, lines

SURVEY_DATA = Path(__file__).resolve().parent / "survey"
PAPER = (
    "arXiv 2409.15790, llama.cpp, 4 bits, Jetson Orin NX (GPU): another engine and another device,"
    " to compare shapes of curves with and not speeds"
)
_MEGABYTE = 1e6
_PARTS = ("compute buffer", "KV cache", "parameters", "other")
_MODEL_PARTS: tuple[Literal["embedding", "attention", "feed-forward", "output head"], ...] = (
    "embedding",
    "attention",
    "feed-forward",
    "output head",
)


@dataclass(frozen=True, slots=True)
class View:
    """One study: its text and its pictures by file name."""

    markdown: str
    pictures: dict[str, str]


def _models(study: Study, cells: Sequence[Cell], number: int) -> View:
    paper = {row["model"].lower(): row for row in _paper("models.csv")}
    rows = []
    for cell in measured_cells(cells):
        test = first_test(cell)
        theirs = paper.get(cell.key.model.lower(), {})
        rows.append(
            [
                name_of(cell),
                f"{cell.parameters / 1e6:,.0f}",
                stat_text(test.ttft_ms),
                stat_text(test.decode_token_ms),
                peak_text(cell),
                verdict_of(test),
                theirs.get(_TTFT, "-"),
                theirs.get("decode_ms_per_tok", "-"),
                theirs.get("mem_MB(ctx2048)", "-"),
            ]
        )
    prompt, gen = study.prompt_tokens[0], study.generate_tokens
    head = [
        "model", "M parameters", "first token, ms", "per token, ms", "peak, MB", "verdict",
        "paper: first token", "paper: per token", "paper: MB",
    ]  # fmt: skip
    picture = f"{number}-per-token.svg"
    drawn = [Bar(name_of(c), ((("per token"), t),)) for c, t in per_token(cells)]
    parts = [
        f"## {number}. First token and decode by model",
        "",
        f"Prompt of {prompt} tokens, {gen} generated. The paper's columns: {PAPER}.",
        "",
        *table_lines(head, rows),
        "",
        f"![time per decoded token]({picture})",
        "",
    ]
    memory, memory_pictures = _memory(cells, number)
    breakdown, breakdown_pictures = _breakdown(cells, number)
    title = "Time per decoded token"
    return View(
        "\n".join([*parts, *memory, *breakdown]),
        {picture: bars(title, "ms", drawn), **memory_pictures, **breakdown_pictures},
    )


_TTFT = "first_token_ms(prompt50,Jetson,4bit)"


def _memory(cells: Sequence[Cell], number: int) -> tuple[list[str], dict[str, str]]:
    paper = {row["model"].lower(): row for row in _paper("memory.csv")}
    rows, drawn = [], []
    for cell in measured_cells(cells):
        split = cell.memory
        if split is None:
            continue
        ours = (split.compute_buffer, split.kv_cache, split.parameters, split.other)
        row = paper.get(cell.key.model.lower())
        columns = ("compute_buffer_MB", "kv_cache_MB", "params_MB", "other_MB")
        theirs = "-" if row is None else " / ".join(f"{float(row[c]):.0f}" for c in columns)
        rows.append([name_of(cell), *(f"{part / _MEGABYTE:,.1f}" for part in ours), theirs])
        drawn.append(
            Bar(name_of(cell), tuple(zip(_PARTS, (p / _MEGABYTE for p in ours), strict=True)))
        )
    picture = f"{number}-memory.svg"
    text = [
        "### Memory split",
        "",
        "Parameters, KV cache and compute buffer as the program plans them; other is what the peak"
        " over the empty process has beyond them (packed copies, the runtime's own).",
        "",
        *table_lines(["model, MB", *_PARTS, "paper, the same four"], rows),
        "",
        f"![memory split]({picture})",
        "",
    ]
    return text, {picture: bars("Memory at the full context", "MB", drawn)}


def _breakdown(cells: Sequence[Cell], number: int) -> tuple[list[str], dict[str, str]]:
    text, pictures = ["### Where the time goes", ""], {}
    for phase in ("prefill", "decode"):
        found = [
            (cell, one)
            for cell in measured_cells(cells)
            for one in (cell.profile.phases if cell.profile else ())
            if one.phase == phase
        ]
        if not found:
            continue
        rows = [[name_of(cell), *_shares(one)] for cell, one in found]
        head = ["model", "embedding", "attention", "feed-forward", "output head", "most time in"]
        drawn = [
            Bar(name_of(cell), tuple((p.part, p.milliseconds) for p in one.parts))
            for cell, one in found
            if one.parts
        ]
        picture = f"{number}-{phase}-parts.svg"
        pictures[picture] = bars(f"One call of {phase}, by part of the model", "ms", drawn)
        text += [f"{phase}, percent of the operators' time (ETDump):", ""]
        text += [*table_lines(head, rows), "", f"![{phase} by part]({picture})", ""]
    reasons = {c.why_no_profile for c in cells if c.why_no_profile}
    text += [f"- no profile: {reason}" for reason in sorted(reasons)]
    return (text if pictures or reasons else []), pictures


def _shares(phase: Phase) -> list[str]:
    total = sum(one.milliseconds for one in phase.operators) or 1.0
    parts = {one.part: one.milliseconds for one in phase.parts}
    top = phase.operators[0]
    most = f"{top.operator}: {top.milliseconds / total:.0%}"
    if not phase.parts:
        return [phase.why_no_parts, "-", "-", "-", most]
    whole = sum(parts.values()) or 1.0
    return [*(f"{parts.get(name, 0.0) / whole:.1%}" for name in _MODEL_PARTS), most]


def _lengths(study: Study, cells: Sequence[Cell], number: int) -> View:
    rows, drawn = [], []
    for cell in measured_cells(cells):
        tests = [t for t in tests_of(cell) if t.n_prompt and not t.n_depth and t.ttft_ms]
        found = {t.n_prompt: t for t in tests}
        rows.append(
            [
                name_of(cell),
                *(stat_text(found[n].ttft_ms) if n in found else "-" for n in study.prompt_tokens),
            ]
        )
        points = tuple((float(n), t.ttft_ms.median) for n, t in found.items() if t.ttft_ms)
        drawn.append(Line(name_of(cell), points))
    picture = f"{number}-lengths.svg"
    head = ["first token, ms", *(f"prompt {n}" for n in study.prompt_tokens)]
    text = [f"## {number}. Latency against prompt length", "", *table_lines(head, rows), ""]
    text += [f"![first token against prompt length]({picture})", ""]
    axes = ("prompt, tokens", "first token, ms")
    return View("\n".join(text), {picture: lines("First token by prompt length", axes, drawn)})


def _quantisation(study: Study, cells: Sequence[Cell], number: int) -> View:
    rows = []
    for cell in measured_cells(cells):
        test = first_test(cell)
        text = cell.bench.recipe if cell.bench else ""
        rows.append(
            [
                name_of(cell), cell.key.recipe, text, f"{cell.program_bytes / _MEGABYTE:,.1f}",
                stat_text(test.ttft_ms), stat_text(test.decode_token_ms), peak_text(cell),
                verdict_of(test),
            ]
        )  # fmt: skip
    head = ["model", "recipe", "stored as", "program, MB", "first token, ms", "per token, ms",
            "peak, MB", "verdict"]  # fmt: skip
    picture = f"{number}-recipes.svg"
    drawn = [Bar(f"{name_of(c)}, {c.key.recipe}", (("per token", t),)) for c, t in per_token(cells)]
    body = [f"## {number}. Quantisation", "", *table_lines(head, rows), ""]
    body += [f"![time per token by recipe]({picture})", ""]
    curves, theirs = _paper_curves("8", "Phi-1.5 by llama.cpp's formats")
    pictures = {picture: bars("Time per decoded token", "ms", drawn), **theirs}
    return View("\n".join([*body, *curves]), pictures)


def _hardware(study: Study, cells: Sequence[Cell], number: int) -> View:
    rows, drawn = [], []
    for cell in measured_cells(cells):
        test = first_test(cell)
        count = test.instructions_per_token
        rows.append(
            [
                name_of(cell), cell.key.device, stat_text(test.ttft_ms),
                stat_text(test.decode_token_ms),
                "-" if count is None else f"{count / 1e6:,.2f}", verdict_of(test),
            ]
        )  # fmt: skip
        points = tuple((float(at), ms) for at, ms in enumerate(cell.steps_ms, 1))
        drawn.append(Line(f"{name_of(cell)}, {cell.key.device}", points))
    head = ["model", "device", "first token, ms", "per token, ms", "M instructions per token",
            "verdict"]  # fmt: skip
    picture = f"{number}-over-time.svg"
    body = [
        f"## {number}. Devices, and each token's time",
        "",
        "A drift along the tokens is a clock that falls or a phone that gets warm (in the paper a"
        " Meizu 18 Pro goes from 40 to 77 ms by token 11). On a virtual phone every time is an"
        " emulator's, and the instructions are what can be compared.",
        "",
        *table_lines(head, rows),
        "",
        f"![each token's time]({picture})",
        "",
    ]
    axes = ("token", "time, ms")
    text, theirs = _paper_curves("9", "two of its devices")
    pictures = {picture: lines("Each decoded token's time", axes, drawn), **theirs}
    return View("\n".join([*body, *text]), pictures)


def _paper_curves(figure: str, what: str) -> tuple[list[str], dict[str, str]]:
    """Return the paper's own curves of one figure, digitised, a picture for each of its parts."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in _paper("curves.csv"):
        if row["fig(v1)"].startswith(figure):
            series = found.setdefault(row["fig(v1)"], {}).setdefault(row["series"], [])
            series.append((float(row["tokens"]), float(row["latency_ms"])))
    text, pictures = [f"The paper's figure {figure}, {what} ({PAPER}):", ""], {}
    for part, curves in found.items():
        picture = f"paper-{part}.svg"
        drawn = [Line(name, tuple(sorted(points))) for name, points in curves.items()]
        axes = ("prompt, tokens" if part.endswith("a") else "token", "latency, ms")
        pictures[picture] = lines(f"Paper, figure {part}", axes, drawn)
        text += [f"![the paper's figure {part}]({picture})", ""]
    return text, pictures


def _long_context(study: Study, cells: Sequence[Cell], number: int) -> View:
    rows, drawn, speeds = [], [], []
    for cell in measured_cells(cells):
        found = {t.n_depth: t for t in tests_of(cell) if t.decode_token_ms}
        split = cell.memory
        if split is None:
            continue
        whole = split.parameters + split.kv_cache + split.compute_buffer + split.other
        context = dict(cell.key.settings)["context"]
        share = (split.kv_cache + split.compute_buffer) / whole
        rows.append(
            [
                name_of(cell), context, f"{split.kv_cache / _MEGABYTE:,.1f}",
                f"{split.compute_buffer / _MEGABYTE:,.1f}", f"{whole / _MEGABYTE:,.1f}",
                f"{share:.0%}",
                *(stat_text(found[d].decode_token_ms) if d in found else "-" for d in study.depths),
            ]
        )  # fmt: skip
        parts = (split.compute_buffer, split.kv_cache, split.parameters, split.other)
        drawn.append(
            Bar(name_of(cell), tuple(zip(_PARTS, (p / _MEGABYTE for p in parts), strict=True)))
        )
        points = [
            (float(d), t.decode_token_ms.median) for d, t in found.items() if t.decode_token_ms
        ]
        speeds.append(Line(name_of(cell), tuple(sorted(points))))
    head = ["model", "context", "KV cache, MB", "compute, MB", "all, MB", "KV and compute",
            *(f"per token at {d}, ms" for d in study.depths)]  # fmt: skip
    names = f"{number}-context-memory.svg", f"{number}-context-speed.svg"
    body = [f"## {number}. Long context", "", *table_lines(head, rows), ""]
    body += [f"![memory]({names[0]})", "", f"![speed by depth]({names[1]})", ""]
    axes = ("tokens in the cache", "per token, ms")
    return View(
        "\n".join(body),
        {
            names[0]: bars("Memory at the longest context", "MB", drawn),
            names[1]: lines("Time per token by depth", axes, speeds),
        },
    )


VIEWS: dict[StudyKind, Callable[[Study, Sequence[Cell], int], View]] = {
    "models": _models,
    "lengths": _lengths,
    "quantisation": _quantisation,
    "hardware": _hardware,
    "long context": _long_context,
}


def _paper(name: str) -> list[dict[str, str]]:
    with (SURVEY_DATA / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
