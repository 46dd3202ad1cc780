"""Write docs/models.md from the check: `python -m tests.matrix` (make models)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from mobilepack.errors import MobilepackError
from tests.matrix.cases import CASES, CHUNK, CONTEXT, Case
from tests.matrix.check import DECODE, MAX_FP32, MAX_OVER_FLOOR, PREFILLS, Outcome, run_case

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
_HEAD = f"""# Which models build, run and match

Written by `make models`; CI runs the same check (`tests/matrix`). Each row is a small model with
random weights that keeps every special feature of its family on at once. Its programs run in
ExecuTorch's runtime: prefill of {", ".join(map(str, PREFILLS[:-1]))} and {CHUNK} tokens, {DECODE}
decode steps after each, one prompt after the other in one loaded program of {CONTEXT} positions.

- **fp32**: rms error over the standard deviation of the logits, fp32 program against the reference
  (`transformers` in float32 unless the note says otherwise); at most {MAX_FP32:g}.
- **8da4w / floor**: the same of the int4 program against quantised eager PyTorch, and how far
  quantised eager itself moves when its embedded tokens are perturbed by 1e-4; at most
  {MAX_OVER_FLOOR:g} times that.
- **quantised**: share of the numbers that are stored in 4 or 8 bits. **delegated**: share of the
  operators that run in XNNPACK (the rest: cache updates, slices, control). **size**: of the int4
  program.

Every row goes through the fast lowering.

| model | family | feature | fp32 | 8da4w / floor | quantised | delegated | size | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> int:
    """Run every case and write the page; returns 1 if a row fails."""
    rows, failed = [], False
    for case in CASES:
        sys.stderr.write(f"{case.name}\n")
        with tempfile.TemporaryDirectory() as folder:
            row, good = _row(case, Path(folder))
        rows.append(row)
        failed = failed or not good
    PAGE.write_text(_HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    return int(failed)


def _row(case: Case, folder: Path) -> tuple[str, bool]:
    try:
        outcome = run_case(case, folder)
    except (MobilepackError, RuntimeError) as err:
        first = str(err).splitlines()[0]
        return _cells(case, ["-"] * 5, f"**fails**: {first}"), False
    problems = outcome.problems()
    note = f"**fails**: {'; '.join(problems)}" if problems else case.note
    return _cells(case, _figures(outcome), note), not problems


def _figures(outcome: Outcome) -> list[str]:
    return [
        f"{outcome.fp32:.1e}",
        f"{outcome.quantised:.1e} / {outcome.floor:.1e}",
        f"{outcome.quantised_share:.1%}",
        f"{outcome.delegated_share:.0%}",
        f"{outcome.file_bytes / 1e3:.0f} kB",
    ]


def _cells(case: Case, figures: list[str], note: str) -> str:
    return (
        "| " + " | ".join([case.name, f"`{case.model_type}`", case.feature, *figures, note]) + " |"
    )


if __name__ == "__main__":
    sys.exit(main())
