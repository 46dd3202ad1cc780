"""Compressed weights of a large program are read by rows, and give what the whole gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilepack.mil.decompress import CompressedConstant, compressed_constants
from mobilepack.mil.interpreter import Interpreter
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.mil.rows import rows_of
from tests.mil.packages import Writer

ROWS, COLUMNS = 96, 256
F16 = "fp16"


def _numbers(writer: Writer, name: str, sizes: tuple[int, ...]) -> str:
    values = np.random.default_rng(len(name)).uniform(0.01, 0.2, sizes).astype("f2")
    return writer.stored(name, values, F16)


def _integers(writer: Writer, dtype: str, sizes: tuple[int, ...]) -> str:
    low, high = {"int4": (-8, 8), "uint4": (0, 16), "int8": (-128, 128), "uint8": (0, 256)}[dtype]
    values = np.random.default_rng(0).integers(low, high, sizes)
    return writer.stored(f"data_{dtype}", values, dtype)


def _scaled(dtype: str, blocks: tuple[int, ...], offset: bool = False) -> Callable[[Writer], str]:
    def add(writer: Writer) -> str:
        sizes = (ROWS, COLUMNS)
        given = {"data": _integers(writer, dtype, sizes), "scale": _numbers(writer, "s", blocks)}
        if offset:
            low = np.arange(np.prod(blocks)).reshape(blocks) % 7
            given["offset"] = writer.stored("o", low, dtype)
        return writer.add("constexpr_blockwise_shift_scale", ("w", (F16, sizes)), **given)

    return add


def _palette(groups: int) -> Callable[[Writer], str]:
    def add(writer: Writer) -> str:
        places = _integers(writer, "uint4", (ROWS, COLUMNS))
        lut = _numbers(writer, "lut", (groups, 1, 16, 1))
        kind = "constexpr_lut_to_dense"
        return writer.add(kind, ("w", (F16, (ROWS, COLUMNS))), indices=places, lut=lut)

    return add


def _affine(axis: int) -> Callable[[Writer], str]:
    def add(writer: Writer) -> str:
        size = (ROWS, COLUMNS)[axis]
        random = np.random.default_rng(0)
        return writer.compressed(
            "constexpr_affine_dequantize",
            ("w", (F16, (ROWS, COLUMNS))),
            quantized_data=(random.integers(0, 256, (ROWS, COLUMNS)), "uint8"),
            zero_point=(random.integers(0, 256, size), "uint8"),
            scale=(random.uniform(0.01, 0.2, size), F16),
            axis=axis,
        )

    return add


FORMS = {
    "int8 with a scale per row": _scaled("int8", (ROWS, 1)),
    "int4 with a scale per row": _scaled("int4", (ROWS, 1)),
    "uint4 with scales and offsets of blocks": _scaled("uint4", (ROWS, 8), offset=True),
    "uint8 with scales of blocks of rows": _scaled("uint8", (12, 4), offset=True),
    "int8 with one scale": _scaled("int8", (1, 1)),
    "a table for 16 rows": _palette(6),
    "a table for all": _palette(1),
}


def _package(form: Callable[[Writer], str], path: Path) -> Path:
    writer = Writer()
    i, x = writer.input("i", ("int32", (1, 3))), writer.input("x", (F16, (5, COLUMNS)))
    weight = form(writer)
    row = writer.add("gather", ("row", (F16, (1, 3, COLUMNS))), x=weight, indices=i, axis=0)
    y = writer.add("linear", ("y", (F16, (5, ROWS))), x=x, weight=weight)
    writer.returns(row, y)
    return writer.save(path / "m.mlpackage")


def _weight(path: Path) -> CompressedConstant:
    (found,) = compressed_constants(open_mlpackage(path).functions["main"])
    return found


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_those_of_the_whole_to_the_bit(form: str, tmp_path: Path) -> None:
    weight = _weight(_package(FORMS[form], tmp_path))
    rows, whole = rows_of(weight.source), weight.load()
    assert rows is not None
    for start, stop in ((0, ROWS), (0, 1), (7, 40), (ROWS - 1, ROWS)):
        wide = torch.full((stop - start, COLUMNS), torch.nan)
        rows.read(start, wide)
        assert torch.equal(wide, whole[start:stop].float())


@pytest.mark.parametrize("form", FORMS)
def test_a_large_compressed_program_takes_no_memory_beyond_its_file(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _package(FORMS[form], tmp_path)
    x = torch.randn(5, COLUMNS, generator=torch.Generator().manual_seed(0))
    given = {"i": torch.tensor([[7, 0, ROWS - 1]]), "x": x}
    wanted = Interpreter(open_mlpackage(path)).run(given)
    monkeypatch.setattr("mobilepack.mil.weights.WIDEST_BYTES", 0)
    monkeypatch.setattr("mobilepack.mil.weights.BLOCK_BYTES", 4 * COLUMNS * 7)
    runner = Interpreter(open_mlpackage(path))
    result = runner.run(given)
    assert runner.weight_memory_bytes == 0
    assert torch.equal(result["row"], wanted["row"])
    # Sums of 256 products in another order, then one rounding to fp16: an ulp of the largest.
    largest = float(wanted["y"].abs().max())
    assert torch.allclose(result["y"], wanted["y"], rtol=0, atol=largest * 2**-10)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_inside_the_program_is_no_mapped_one(axis: int, tmp_path: Path) -> None:
    assert rows_of(_weight(_package(_affine(axis), tmp_path)).source) is None


@pytest.mark.parametrize("budget", [2 * ROWS * COLUMNS, 100])
def test_a_small_program_keeps_half_precision_where_the_budget_reaches(
    budget: int, tmp_path: Path
) -> None:
    path = _package(FORMS["int4 with a scale per row"], tmp_path)
    given = {"i": torch.tensor([[1, 2, 3]]), "x": torch.ones(5, COLUMNS)}
    runner = Interpreter(open_mlpackage(path), budget_bytes=budget)
    runner.run(given)
    assert runner.weight_memory_bytes == (budget if budget > 100 else 0)
