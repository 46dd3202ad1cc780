"""The parity ladder: rows from the flight recorder and from what a program brought back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilepack.contract.parity import ParityRow, PerturbationFloor, Rung
from mobilepack.contract.reference import GreedyReference, Reference, Rows, Variant
from mobilepack.contract.run_result import Generated, Row, RunResult
from mobilepack.metrics import compare, tolerance
from mobilepack.metrics.checks import Check, Checks
from mobilepack.metrics.parity import greedy_prefix
from mobilepack.metrics.tolerance import TIE_MARGIN_OVER_STD, Limit, Limits

EAGER: dict[Variant, Rung] = {"fp32": "eager fp32", "quantised": "eager quantised"}
_SELF = "decode steps against whole prefills of the same tokens"


@dataclass(frozen=True, slots=True)
class Judge:
    """Holds one program against one reference.

    Attributes:
        rung: Where the program ran.
        max_ppl_ratio: Limit of PPL(program) / PPL(eager fp32), None to report it only.
        recipe: How linear layers are computed, as in `Recipe.linear`.
    """

    reference: Reference
    rung: Rung
    floor: PerturbationFloor | None
    max_ppl_ratio: float | None
    recipe: str = "8da4w"

    @property
    def top(self) -> Variant:
        """The variant that the program must equal."""
        return "quantised" if "quantised" in self.reference.rows else "fp32"

    def limits(self, positions: int) -> Limits:
        """Limits of the program against that variant, over so many positions."""
        if self.top == "fp32" and self.recipe != "fp16":
            return tolerance.fp32_limits()
        return tolerance.limits_of(self.recipe, self.floor, positions)

    @property
    def tie_margin(self) -> float:
        """Distance in standard deviations within which logits may swap."""
        half = self.recipe in ("fp16", "8w", "4w", "4p")
        return tolerance.HALF_TIE_MARGIN if half else TIE_MARGIN_OVER_STD

    def rows(self, checks: Checks, result: RunResult) -> tuple[ParityRow, ...]:
        """Return the ladder, top first."""
        return (*self.eager(), *self.program(checks, result))

    def program(self, checks: Checks, result: RunResult) -> tuple[ParityRow, ...]:
        """Return the rows of the program, without those above it."""
        return (
            *(self._against_eager(check, result.rows) for check in checks.teachers),
            self._decode_against_prefill(checks, result.rows),
            *self._whole_cache(checks, result.rows),
            *self._greedy(checks, result.generated),
            *self._against_fp32(checks, result.rows),
        )

    def beside(
        self, checks: Checks, result: RunResult, other: Rung, theirs: RunResult
    ) -> ParityRow:
        """Hold the program against itself on another rung, call by call."""
        what = "the same calls, all checks"
        pair = []
        for rows in (theirs.rows, result.rows):
            found, problem = rows_of(checks.teachers, rows)
            if problem:
                return compare.failed_row(self.rung, other, what, problem)
            pair.append(compare.as_arrays(found))
        first, second = pair
        index, limits = self.reference.index, self.limits(len(first))
        metrics = compare.compare(first, second, index, limits, self.tie_margin)
        return compare.judged_row(self.rung, other, what, len(pair[0]), metrics)

    def eager(self) -> list[ParityRow]:
        """Return what quantisation costs before any lowering; empty for an fp32 package."""
        base = self.reference.rows.get("fp32")
        if self.top == "fp32" or base is None:
            return []
        quantised = self.reference.rows["quantised"]
        metrics = compare.compare(base, quantised, self.reference.index, {})
        what = "what quantisation costs, every position of the reference"
        return [compare.judged_row("eager quantised", "eager fp32", what, len(base), metrics)]

    def _against_eager(self, check: Check, rows: Sequence[Row]) -> ParityRow:
        against = EAGER[self.top]
        found, problem = rows_of([check], rows)
        if problem:
            return compare.failed_row(self.rung, against, check.name, problem)
        expected = self._expected(self.top, [check], found)
        limits = self.limits(len(found))
        metrics = compare.compare(
            expected, compare.as_arrays(found), self.reference.index, limits, self.tie_margin
        )
        return compare.judged_row(self.rung, against, check.name, len(found), metrics)

    def _decode_against_prefill(self, checks: Checks, rows: Sequence[Row]) -> ParityRow:
        prefilled, problem = rows_of(checks.prefills, rows)
        if not problem and not prefilled:
            why = "no decode step ended within one prefill chunk"
            return compare.not_run(self.rung, _SELF, why)
        wanted = {row.position for row in prefilled}
        every, other = rows_of([checks.decoded], rows)
        decoded = [row for row in every if row.position in wanted and row.call_tokens == 1]
        if problem or other or len(decoded) != len(prefilled):
            why = problem or other or "the run lacks decode steps"
            return compare.failed_row(self.rung, self.rung, _SELF, why)
        pair = (compare.as_arrays(prefilled), compare.as_arrays(decoded))
        limits = self.limits(len(decoded))
        metrics = compare.compare(*pair, self.reference.index, limits, self.tie_margin)
        return compare.judged_row(self.rung, self.rung, _SELF, len(decoded), metrics)

    def _whole_cache(self, checks: Checks, rows: Sequence[Row]) -> list[ParityRow]:
        """Hold two ways of filling the cache against each other; no eager rows reach that far."""
        if not checks.whole:
            return []
        one, other = checks.whole
        name = f"{one.name}, against chunks of {other.item.calls[0]}"
        pair = []
        for check in checks.whole:
            found, problem = rows_of([check], rows)
            if problem:
                return [compare.failed_row(self.rung, self.rung, name, problem)]
            pair.append({row.position: row for row in found})
        shared = sorted(pair[0].keys() & pair[1].keys())
        first, second = (compare.as_arrays([side[p] for p in shared]) for side in pair)
        limits = self.limits(len(shared))
        metrics = compare.compare(first, second, self.reference.index, limits, self.tie_margin)
        return [compare.judged_row(self.rung, self.rung, name, len(shared), metrics)]

    def _against_fp32(self, checks: Checks, rows: Sequence[Row]) -> list[ParityRow]:
        if "fp32" not in self.reference.rows:
            return []
        found, problem = rows_of(checks.teachers, rows)
        what = "PPL and distance to the top over all checks"
        if problem:
            return [compare.not_run(self.rung, what, problem)]
        expected = self._expected("fp32", checks.teachers, found)
        limits: Limits = {}
        if self.max_ppl_ratio is not None:
            limits["ppl_ratio"] = Limit(self.max_ppl_ratio, "asked for with --max-ppl-ratio")
        metrics = compare.compare(expected, compare.as_arrays(found), self.reference.index, limits)
        return [compare.judged_row(self.rung, "eager fp32", what, len(found), metrics)]

    def _expected(self, variant: Variant, checks: Sequence[Check], found: Sequence[Row]) -> Rows:
        start = {check.name: self.reference.offset(check.sequence) for check in checks}
        index = [start[row.item] + row.position for row in found]
        return self.reference.rows[variant].take(index)

    def _greedy(self, checks: Checks, generated: Sequence[Generated]) -> list[ParityRow]:
        by_name = {g.item: g for g in generated}
        pairs = [(item, ref) for item, ref in checks.greedy if ref.variant == self.top]
        if not pairs:
            why = f"the reference holds no greedy text of {EAGER[self.top]}; top1_agreement of the"
            why += " decode steps says the same, token by token"
            return [compare.not_run(self.rung, "greedy text", why)]
        return [self._greedy_row(item.name, ref, by_name.get(item.name)) for item, ref in pairs]

    def _greedy_row(
        self, name: str, reference: GreedyReference, generated: Generated | None
    ) -> ParityRow:
        against = EAGER[self.top]
        if generated is None:
            return compare.failed_row(self.rung, against, name, "the run brought back no text")
        expected = reference.token_ids[: max(1, len(generated.token_ids))]
        shared = greedy_prefix(expected, generated.token_ids)
        limits: Limits = {}
        if self.top == "fp32":
            std = float(self.reference.rows["fp32"].sampled.std())
            margin = self.tie_margin * std
            tied = [i for i, gap in enumerate(reference.gaps[: len(expected)]) if gap <= margin]
            why = "all of it" + (", up to a tie" if tied else "")
            limits["greedy_prefix_tokens"] = Limit(min([*tied, len(expected)]), why)
        metrics = (compare.measured("greedy_prefix_tokens", shared, limits),)
        return compare.judged_row(self.rung, against, name, len(expected), metrics)


def rows_of(checks: Sequence[Check], rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return the rows of checks in order, and what is wrong with them."""
    found: list[Row] = []
    for check in checks:
        mine = [row for row in rows if row.item == check.name]
        calls = len(check.item.calls)
        if len(mine) != calls:
            return found, f"{check.name}: the run brought back {len(mine)} of {calls} rows"
        found += mine
    broken = [row for row in found if row.non_finite]
    if broken:
        first = broken[0]
        where = f"first after position {first.position} of {first.item!r}"
        return found, f"{len(broken)} of {len(found)} calls gave NaN or infinite logits, {where}"
    return found, ""
