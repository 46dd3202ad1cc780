"""Writing a program file: the packing of integers, and resuming wherever a kill stopped it."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilepack.backends.xnnpack import emit
from mobilepack.backends.xnnpack.emit import Observer, ProgramFile, Sources, fill
from mobilepack.backends.xnnpack.layout import (
    Bytes,
    FileMap,
    HeadRows,
    Layout,
    Matrix,
    Table,
    Vector,
)
from mobilepack.models.quantization import QuantisedRows, quantise
from tests.models.networks import RandomWeights, tables, tiny_spec

SPEC = tiny_spec("qwen2", num_hidden_layers=1, tie_word_embeddings=False)
HEAD = b"head of the file".ljust(64, b"\0")
HALF = HeadRows(16, 8, 16)


NOTHING_SKIPPED = Observer()


def small_layout() -> FileMap:
    """Return a layout with content of every kind."""
    layout = Layout()
    vocab, hidden = SPEC.vocab_size, SPEC.hidden_size
    layout.constant(vocab * hidden // 2, Matrix("embed.weight", "embedding4", 32, "values"))
    layout.constant(vocab * hidden // 16, Matrix("embed.weight", "embedding4", 32, "scales"))
    layout.constant(16 * 8 * 4, Table("tables.cos_0"))
    layout.constant(16 * 8 * 4, Table("tables.sin_0"))
    layout.name("literal", 5, Bytes(b"12345"))
    layout.name("norm", hidden * 4, Vector("norm.weight"))
    layout.name("bias", 4 * 8 * 4, Vector("layers.0.q.bias", HALF))
    for name, encoding, group, rows in (
        ("layers.0.q.weight", "int4", 32, HALF),
        ("layers.0.up.weight", "int8", hidden, None),
        ("head.weight", "int4", 64, None),
    ):
        count, columns = RandomWeights(SPEC).shape(name)
        numbers = (count if rows is None else rows.count(count)) * columns
        size, scale = (numbers // 2, 2) if encoding == "int4" else (numbers, 4)
        layout.name(name, size, Matrix(name, encoding, group, "values", rows))
        layout.name(
            name + ".scales",
            numbers // group * scale,
            Matrix(name, encoding, group, "scales", rows),
        )
    layout.name("k.scales", 32 * 2 * 2, Matrix("layers.0.k.weight", "int4", 32, "scales"))
    layout.name("down", 64 * 96 * 4, Matrix("layers.0.down.weight", "fp32", 0, "values"))
    return layout.place()


def write(path: Path, observer: Observer = NOTHING_SKIPPED, *, finish: bool = True) -> bytes:
    layout = small_layout()
    file = ProgramFile(path, len(HEAD))
    try:
        fill(file, layout, Sources(RandomWeights(SPEC), tables(SPEC, 16)), observer)
        if finish:
            file.finish(HEAD, layout.size)
    finally:
        file.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("whole") / "model.pte")


def bf16(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.bfloat16).float()


def region(whole: bytes, name: str) -> bytes:
    layout = small_layout()
    start, size = layout.segments[layout.named[name]]
    return whole[len(HEAD) + start : len(HEAD) + start + size]


def test_the_file_has_the_head_and_the_length_of_the_layout(whole: bytes) -> None:
    assert whole.startswith(HEAD)
    assert len(whole) == len(HEAD) + small_layout().size


def test_every_region_holds_what_it_names(whole: bytes) -> None:
    weights = RandomWeights(SPEC)
    assert region(whole, "literal") == b"12345"
    assert region(whole, "norm") == weights["norm.weight"].numpy().tobytes()
    assert region(whole, "down") == weights["layers.0.down.weight"].numpy().tobytes()
    bias = weights["layers.0.q.bias"].view(4, 16)[:, 8:].numpy()
    assert region(whole, "bias") == bias.tobytes()
    cos = tables(SPEC, 16)["tables.cos_0"].numpy().tobytes()
    start = len(HEAD) + small_layout().constants[2]
    assert whole[start : start + len(cos)] == cos


def test_quantised_matrices_read_back_as_they_were_rounded(whole: bytes) -> None:
    weights = RandomWeights(SPEC)
    rows = weights["layers.0.q.weight"].view(4, 16, 64)[:, 8:].reshape(32, 64)
    expected = quantise(rows, "int4", 32)
    packed = np.frombuffer(region(whole, "layers.0.q.weight"), np.uint8).reshape(32, 32)
    assert (unpack(packed, low_first=True) == expected.values.numpy()).all()
    assert torch.equal(bf16(region(whole, "layers.0.q.weight.scales")), expected.scales.ravel())
    eight = quantise(weights["layers.0.up.weight"], "int8", 64)
    integers = np.frombuffer(region(whole, "layers.0.up.weight"), np.int8).reshape(96, 64)
    assert (integers == eight.values.numpy()).all()
    found = np.frombuffer(region(whole, "layers.0.up.weight.scales"), np.float32)
    assert (found == eight.scales.numpy().ravel()).all()


def test_scales_of_integers_that_lie_elsewhere_are_written_alone(whole: bytes) -> None:
    expected = quantise(RandomWeights(SPEC)["layers.0.k.weight"], "int4", 32).scales
    assert torch.equal(bf16(region(whole, "k.scales")), expected.ravel())


def unpack(packed: np.ndarray, *, low_first: bool) -> np.ndarray:
    """Return the integers of nibbles with offset 8, spelled out column by column."""
    rows, columns = packed.shape
    out = np.empty((rows, 2 * columns), np.int8)
    for i in range(rows):
        for j in range(columns):
            low, high = int(packed[i, j]) % 16 - 8, int(packed[i, j]) // 16 - 8
            out[i, 2 * j], out[i, 2 * j + 1] = (low, high) if low_first else (high, low)
    return out


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 4), pairs=st.integers(1, 20))
def test_nibbles_round_trip_in_the_order_of_their_reader(seed: int, rows: int, pairs: int) -> None:
    """XNNPACK reads the even column from the low nibble, ExecuTorch's embedding from the high."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-8, 8, (rows, 2 * pairs), generator=generator, dtype=torch.int8)
    quantised = QuantisedRows(values, torch.ones(rows, 1))
    for encoding, low_first in (("int4", True), ("embedding4", False)):
        packed = emit._pack(quantised, encoding)
        assert packed.dtype == np.uint8
        assert packed.shape == (rows, pairs)
        assert (unpack(packed, low_first=low_first) == values.numpy()).all()
    assert (emit._pack(quantised, "int8") == values.numpy()).all()


class KilledError(Exception):
    """What a test stops the writer with."""


@pytest.mark.parametrize("seed", range(6))
def test_any_subset_of_finished_regions_can_be_left_out(
    seed: int, whole: bytes, tmp_path: Path
) -> None:
    path, chosen = tmp_path / "model.pte", random.Random(seed)
    count = len(small_layout().regions)
    skip = frozenset(chosen.sample(range(count), chosen.randint(0, count)))
    written: list[int] = []
    write(path, finish=False)
    assert write(path, Observer(skip, on_region=written.append)) == whole
    assert sorted({*written, *skip}) == list(range(count))
    assert not skip & set(written)


@pytest.mark.parametrize("stop", range(0, 14, 2))
def test_a_writer_that_was_stopped_goes_on_where_it_was(
    stop: int, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emit, "_CHUNK_ELEMENTS", 700)  # several pieces per matrix
    path, done = tmp_path / "model.pte", set[int]()
    pieces = 0

    def count(written: int) -> None:
        nonlocal pieces
        pieces += 1
        if pieces > 3 * stop:
            raise KilledError

    with pytest.raises(KilledError):
        write(path, Observer(on_bytes=count, on_region=done.add))
    assert write(path, Observer(frozenset(done))) == whole


def test_progress_adds_up_and_pieces_are_small(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emit, "_CHUNK_ELEMENTS", 1024)
    told: list[int] = []
    assert write(tmp_path / "model.pte", Observer(on_bytes=told.append)) == whole
    assert max(told) <= 4 * 1024
    assert 0.9 * small_layout().size < sum(told) <= small_layout().size


def test_an_older_longer_file_leaves_no_tail(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(b"\xff" * (len(whole) + 1000))
    found = write(path)
    assert len(found) == len(whole)
    layout = small_layout()
    for part in layout.regions:
        at = slice(len(HEAD) + part.offset, len(HEAD) + part.offset + part.size)
        assert found[at] == whole[at]


def test_a_write_that_the_system_cuts_short_is_continued(tmp_path: Path) -> None:
    """Near the end of a disk `write` may take less than it is given, without an error."""

    class Reluctant:
        def __init__(self, path: Path) -> None:
            path.touch()
            self.real = path.open("r+b", buffering=0)

        def write(self, data: memoryview) -> int:
            return self.real.write(data[:7])

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    file = ProgramFile(tmp_path / "model.pte", 64)
    file.close()
    file._file = Reluctant(tmp_path / "model.pte")  # type: ignore[assignment]
    file.write(0, b"weights" * 9)
    file.finish(HEAD, 63)
    file.close()
    assert (tmp_path / "model.pte").read_bytes() == HEAD + b"weights" * 9


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_an_error_and_not_a_short_file() -> None:
    file = ProgramFile(Path("/dev/full"), 64)
    with pytest.raises(OSError) as failure:
        file.finish(HEAD, 64)
    file.close()
    assert failure.value.errno == errno.ENOSPC
