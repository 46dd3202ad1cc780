"""The check that every row of docs/models.md comes from.

fp32 program against the reference, and 8da4w program against quantised eager, in the real runtime:
prefill of 1, of an odd length and of the longest, each with 8 decode steps, one after the other in
one loaded program, so that every prompt but the first is a second one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mobilepack.backends.xnnpack.emit import ProgramFile, Sources, fill
from mobilepack.backends.xnnpack.lower import Lowering
from mobilepack.backends.xnnpack.lowered import Lowered
from mobilepack.contract.manifest import Recipe
from mobilepack.models.spec import parameter_shapes
from mobilepack.models.streaming import Lane
from mobilepack.models.tables import make_tables
from mobilepack.models.weights import LoadedModel, open_model
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.reference import PERTURBATION, Eager, quantisation_of
from tests.matrix.cases import CHUNK, Case
from tests.matrix.references import Reference, reference_of
from tests.models.networks import random_ids, relative_rms
from tests.runtime import Program

FP32 = Recipe(linear="fp32", group_size=0, embedding="fp32")
QUANTISED = Recipe()
DECODE = 8
PREFILLS = (1, 7, CHUNK)

MAX_FP32 = 1e-5
"""rms / std against the reference: float32's own rounding; measured 2e-7 to 2e-6."""
MAX_OVER_FLOOR = 2.0
"""Times the perturbation floor, as `mobilepack verify` allows."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one case showed.

    Attributes:
        fp32: rms(error) / std(logits) of the fp32 program against the reference.
        quantised: The same of the 8da4w program against quantised eager.
        floor: How far quantised eager moves when its embedded tokens are perturbed by 1e-4.
        quantised_share: Quantised numbers over all.
        delegated_share: Operators inside XNNPACK over all.
        file_bytes: Of the 8da4w program.
    """

    fp32: float
    quantised: float
    floor: float
    quantised_share: float
    delegated_share: float
    file_bytes: int

    def problems(self) -> list[str]:
        """Return what is not as it must be."""
        found = []
        if not self.fp32 <= MAX_FP32:
            found.append(f"fp32 error {self.fp32:.2g}")
        if not self.quantised <= max(MAX_FP32, MAX_OVER_FLOOR * self.floor):
            found.append(f"8da4w error {self.quantised:.2g} over the floor {self.floor:.2g}")
        return found


def run_case(case: Case, folder: Path) -> Outcome:
    """Build a case's programs and hold them against its reference."""
    reference = reference_of(case)
    reference.save(folder)
    model = open_model(folder)
    try:
        return _measure(case, reference, model, folder)
    finally:
        model.close()


def _measure(case: Case, reference: Reference, model: LoadedModel, folder: Path) -> Outcome:
    exported = export_decoder(model.spec, case.context, CHUNK)
    tables = make_tables(model.spec, case.context)
    eager = Eager(exported, model.weights, tables)
    prompts = [random_ids(model.spec, first + DECODE, seed) for seed, first in enumerate(PREFILLS)]
    fp32, _ = program_of(eager, model, case.context, FP32, folder / "fp32.pte")
    quantised, lowered = program_of(eager, model, case.context, QUANTISED, folder / "8da4w.pte")
    kind = quantisation_of(QUANTISED)
    rounded = eager.run([Lane(ids, kind) for ids in prompts])
    moved = eager.run([Lane(ids, kind, PERTURBATION) for ids in prompts])
    rows = lowered.tally.rows
    numbers = sum(count for count, _ in rows.values())
    plain = sum(count for label, (count, _) in rows.items() if label == "fp32")
    return Outcome(
        fp32=error_of(fp32, prompts, [reference.logits(ids) for ids in prompts]),
        quantised=error_of(quantised, prompts, rounded),
        floor=relative_rms(torch.cat(moved), torch.cat(rounded)),
        quantised_share=1 - plain / numbers,
        delegated_share=lowered.operators
        / (lowered.operators + sum(lowered.kernel_calls.values())),
        file_bytes=(folder / "8da4w.pte").stat().st_size,
    )


def program_of(
    eager: Eager, model: LoadedModel, context: int, recipe: Recipe, path: Path
) -> tuple[Program, Lowered]:
    """Lower a model by a recipe and load the program."""
    identities = {name: model.weights.identity(name) for name in parameter_shapes(model.spec)}
    lowered = Lowering(eager.exported, recipe, identities, context).run({"get_bos_id": 0})
    file = ProgramFile(path, len(lowered.head))
    fill(file, lowered.layout, Sources(model.weights, eager.tables))
    file.finish(lowered.head, lowered.layout.size)
    file.close()
    return Program(path), lowered


def error_of(
    program: Program, prompts: list[tuple[int, ...]], expected: list[torch.Tensor]
) -> float:
    """Return rms / std of the program's logits after every prefill and decode step."""
    found, wanted = [], []
    for first, ids, rows in zip(PREFILLS, prompts, expected, strict=True):
        found.append(program.feed(ids, (first, *[1] * DECODE)))
        wanted.append(rows[first - 1 :])
    return relative_rms(torch.cat(found), torch.cat(wanted))
