from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from mobilepack.errors import BuildError, MobilepackError, UsageError
from mobilepack.models import safetensors_file
from mobilepack.models.safetensors_file import SafetensorsFile
from mobilepack.models.safetensors_header import DTYPE_BITS

FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def raw_file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(content: bytes) -> Path:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rows_come_back_as_float32_whatever_the_float_type(tmp_path: Path, dtype: Any) -> None:
    tensor = torch.randn(7, 3, 2).to(dtype)
    save_file({"a": torch.ones(3), "b": tensor}, tmp_path / "x.safetensors", {"format": "pt"})
    with SafetensorsFile.open(tmp_path / "x.safetensors") as file:
        assert file.metadata == {"format": "pt"}
        assert file.tensors["b"].shape == (7, 3, 2)
        for start, stop in ((0, 7), (2, 5), (6, 7), (4, 4)):
            rows = file.read_rows("b", start, stop)
            assert rows.dtype == torch.float32
            assert torch.equal(rows, tensor[start:stop].float())


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=5),
    dtype=st.sampled_from(FLOATS),
)
def test_what_the_reference_library_writes_is_read_back(
    tmp_path: Path, shapes: list[list[int]], dtype: Any
) -> None:
    tensors = {f"t{i}": torch.randn(shape).to(dtype) for i, shape in enumerate(shapes)}
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(tensors))
    with SafetensorsFile.open(path) as file:
        assert set(file.tensors) == set(tensors)
        for name, tensor in tensors.items():
            whole = tensor.float().reshape(tensor.shape or (1,))
            assert torch.equal(file.read_rows(name, 0, whole.shape[0]), whole)


def test_a_large_tensor_is_converted_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_file, "BLOCK_BYTES", 64)
    tensor = torch.randn(37, 11).bfloat16()
    save_file({"t": tensor}, tmp_path / "x.safetensors")
    with SafetensorsFile.open(tmp_path / "x.safetensors") as file:
        assert torch.equal(file.read_rows("t", 1, 36), tensor[1:36].float())


def test_rows_are_read_into_a_given_tensor(tmp_path: Path) -> None:
    tensor = torch.randn(8, 4)
    save_file({"t": tensor}, tmp_path / "x.safetensors")
    out = torch.empty(3, 4)
    with SafetensorsFile.open(tmp_path / "x.safetensors") as file:
        assert file.read_rows("t", 2, 5, out) is out
        assert torch.equal(out, tensor[2:5])
        for wrong in (torch.empty(3, 5), torch.empty(3, 4).half(), torch.empty(4, 3).T):
            with pytest.raises(ValueError, match="contiguous float32"):
                file.read_rows("t", 2, 5, wrong)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 9)])
def test_rows_outside_the_tensor_are_refused(tmp_path: Path, start: int, stop: int) -> None:
    save_file({"t": torch.zeros(8, 4)}, tmp_path / "x.safetensors")
    with (
        SafetensorsFile.open(tmp_path / "x.safetensors") as file,
        pytest.raises(ValueError, match="rows"),
    ):
        file.read_rows("t", start, stop)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.bool, torch.float8_e4m3fn])
def test_a_tensor_that_is_no_float_is_a_clear_error(tmp_path: Path, dtype: Any) -> None:
    save_file({"qweight": torch.zeros(4, 4).to(dtype)}, tmp_path / "x.safetensors")
    with (
        SafetensorsFile.open(tmp_path / "x.safetensors") as file,
        pytest.raises(BuildError, match="element type") as failure,
    ):
        file.read_rows("qweight", 0, 4)
    assert failure.value.code == "unsupported-dtype"
    assert "'qweight'" in failure.value.what


def test_threads_may_share_a_file(tmp_path: Path) -> None:
    tensor = torch.randn(64, 257).bfloat16()
    save_file({"t": tensor}, tmp_path / "x.safetensors")
    wrong: list[int] = []
    with SafetensorsFile.open(tmp_path / "x.safetensors") as file:

        def read(row: int) -> None:
            for _ in range(20):
                if not torch.equal(
                    file.read_rows("t", row, row + 1), tensor[row : row + 1].float()
                ):
                    wrong.append(row)

        threads = [threading.Thread(target=read, args=(row,)) for row in range(0, 64, 8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_closing_gives_the_descriptor_back(tmp_path: Path) -> None:
    save_file({"t": torch.zeros(2)}, tmp_path / "x.safetensors")
    before = open_descriptors()
    file = SafetensorsFile.open(tmp_path / "x.safetensors")
    file.close()
    file.close()
    dropped = SafetensorsFile.open(tmp_path / "x.safetensors")
    del dropped
    assert open_descriptors() == before
    with pytest.raises(ValueError, match="closed"):
        file.read_rows("t", 0, 2)


def test_a_file_that_shrinks_while_it_is_open_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"t": torch.zeros(64)}, path)
    with SafetensorsFile.open(path) as file:
        os.truncate(path, path.stat().st_size - 8)
        with pytest.raises(UsageError) as failure:
            file.read_rows("t", 0, 64)
    assert failure.value.code == "truncated-weights"


@pytest.mark.parametrize("cut", [0, 5, 8, 30, -1])
def test_a_truncated_file_is_reported_as_incomplete(written: Any, cut: int) -> None:
    whole = save({"t": torch.zeros(64)})
    path = written(whole[:cut])
    with pytest.raises(UsageError) as failure:
        SafetensorsFile.open(path)
    assert failure.value.code == "truncated-weights"
    assert str(path) in failure.value.what


MALFORMED: dict[str, tuple[bytes, str]] = {
    "header too long": ((100_000_001).to_bytes(8, "little") + b"{}", "100 MB"),
    "not json": (raw_file(b"{]"), "property name"),
    "leading space": (raw_file(b" {}"), "begin with"),
    "a list": (raw_file(b"[]"), "begin with"),
    "not utf-8": (raw_file(b'{"\xff": 1}'), "utf-8"),
    "deep nesting": (raw_file(b'{"a":' + b"[" * 200_000), "nested too deeply"),
    "huge number": (raw_file(b'{"a":' + b"9" * 5000 + b"}"), "integer string"),
    "nan": (raw_file(b'{"a":NaN}'), "NaN"),
    "twice": (raw_file(b'{"a":{},"a":{}}'), "appears twice"),
    "trailing bytes": (raw_file({"a": entry()}, bytes(9)), "belong to no tensor"),
    "unknown dtype": (raw_file({"a": entry("F31")}, bytes(8)), "unknown dtype"),
    "dtype is a list": (raw_file({"a": entry(["F32"])}, bytes(8)), "unknown dtype"),  # type: ignore[arg-type]
    "negative shape": (raw_file({"a": entry(shape=[-2])}, bytes(8)), "shape"),
    "boolean shape": (raw_file({"a": entry(shape=[True])}, bytes(8)), "shape"),
    "fractional shape": (raw_file({"a": entry(shape=[2.0])}, bytes(8)), "shape"),
    "overflowing shape": (raw_file({"a": entry(shape=[2**53] * 9)}, bytes(8)), "needs"),
    "size": (raw_file({"a": entry(shape=[3])}, bytes(8)), "needs 12"),
    "half a byte": (raw_file({"a": entry("F4", [1], [0, 0])}), "needs 0.5"),
    "offsets reversed": (raw_file({"a": entry(offsets=[8, 0])}, bytes(8)), "data_offsets"),
    "three offsets": (raw_file({"a": entry(offsets=[0, 8, 8])}, bytes(8)), "data_offsets"),
    "hole": (raw_file({"a": entry(offsets=[4, 12])}, bytes(12)), "leaves a hole"),
    "overlap": (
        raw_file({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)),
        "overlaps",
    ),
    "missing key": (raw_file({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "are needed"),
    "extra key": (raw_file({"a": {**entry(), "x": 1}}, bytes(8)), "are needed"),
    "entry is text": (raw_file({"a": "F32"}), "are needed"),
    "metadata": (raw_file({"__metadata__": {"a": 1}}), "__metadata__"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_header_is_refused_with_its_cause(written: Any, case: str) -> None:
    content, cause = MALFORMED[case]
    with pytest.raises(UsageError) as failure:
        SafetensorsFile.open(written(content))
    assert failure.value.code == "invalid-safetensors"
    assert cause in failure.value.why
    failure.value.why.encode()  # printable, even if the file had lone surrogates in a name


def test_a_directory_and_a_missing_file_are_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError) as failure:
            SafetensorsFile.open(path)
        assert failure.value.code == "unreadable-file"


def test_the_known_dtypes_are_those_of_the_reference_library() -> None:
    from safetensors.torch import _TYPES

    assert set(_TYPES) <= set(DTYPE_BITS)
    for name, dtype in _TYPES.items():
        if not name.startswith("F4"):
            assert DTYPE_BITS[name] == dtype.itemsize * 8


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a file that is valid but for a few damages to header or length."""
    whole = bytearray(save({"a": torch.zeros(3, 2), "b": torch.zeros(4).half()}))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(whole) - 1))
        action = draw(st.sampled_from(["set", "cut", "insert", "digit"]))
        if action == "cut":
            del whole[place:]
        elif action == "insert":
            whole[place:place] = draw(st.binary(max_size=4))
        else:
            byte = draw(st.integers(48, 57) if action == "digit" else st.integers(0, 255))
            whole[place] = byte
        if not whole:
            break
    return bytes(whole)


def only_our_errors(path: Path) -> None:
    """Open and read everything; anything but a MobilepackError fails the test."""
    try:
        with SafetensorsFile.open(path) as file:
            for name, info in file.tensors.items():
                file.read_rows(name, 0, (info.shape or (1,))[0])
    except MobilepackError as err:
        f"{err.what}{err.why}{err.next}".encode()


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=damaged())
def test_damaged_files_raise_nothing_but_our_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.safetensors"
    path.write_bytes(content)
    only_our_errors(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    header=st.dictionaries(
        st.text(max_size=5),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from([*DTYPE_BITS, "X"]) | json_values,
                "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
                "data_offsets": st.lists(st.integers(-1, 64), max_size=3) | json_values,
            }
        )
        | json_values,
        max_size=3,
    ),
    data=st.binary(max_size=32),
)
def test_arbitrary_headers_raise_nothing_but_our_errors(
    tmp_path: Path, header: Any, data: bytes
) -> None:
    path = tmp_path / "fuzz.safetensors"
    path.write_bytes(raw_file(header, data))
    only_our_errors(path)
