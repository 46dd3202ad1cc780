"""What is written is what the readers, ours and coremltools', read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mobilepack.mil.flat_directory import flat_index, open_flat_directory
from mobilepack.mil.storage import elements, open_weight_file, unpack_bits
from mobilepack.mil.types import BY_LABEL, DType, TensorType
from mobilepack.mil.weight_writer import WeightWriter, packed_nibbles
from mobilepack.mil.writer import FunctionWriter, write_mlpackage
from tests.mil.single import coremltools

BLOBS = {
    "fp16": np.arange(7, dtype=np.float16),
    "fp32": np.arange(3, dtype=np.float32),
    "int8": np.arange(-5, 60, dtype=np.int8),
    "uint8": np.arange(64, dtype=np.uint8),
    "int32": np.arange(5, dtype=np.int32),
}


def written(path: Path) -> dict[str, int]:
    with WeightWriter(path) as writer:
        return {label: writer.add(BY_LABEL[label], [v[:2], v[2:]]) for label, v in BLOBS.items()}


def test_blobs_come_back_from_our_reader(tmp_path: Path) -> None:
    offsets = written(tmp_path / "weight.bin")
    file = open_weight_file("weight.bin", memoryview((tmp_path / "weight.bin").read_bytes()))
    for label, values in BLOBS.items():
        kind = TensorType(BY_LABEL[label], values.shape)
        assert offsets[label] % 64 == 0
        np.testing.assert_array_equal(elements(file.blob(offsets[label], kind), kind), values)


@pytest.mark.slow
def test_blobs_come_back_from_coremltools(tmp_path: Path) -> None:
    coremltools()
    from coremltools.libmilstoragepython import _BlobStorageReader

    offsets = written(tmp_path / "weight.bin")
    reader = _BlobStorageReader(str(tmp_path / "weight.bin"))
    assert list(reader.read_int8_data(offsets["int8"])) == BLOBS["int8"].tolist()
    assert list(reader.read_float_data(offsets["fp32"])) == BLOBS["fp32"].tolist()
    halves = np.array(reader.read_fp16_data(offsets["fp16"]), np.uint16).view(np.float16)
    np.testing.assert_array_equal(halves, BLOBS["fp16"])


@pytest.mark.parametrize("dtype", [DType.INT4, DType.UINT4])
def test_nibbles_come_back(dtype: DType) -> None:
    low = -8 if dtype.is_signed else 0
    values = np.arange(low, low + 16, dtype=np.int8 if dtype.is_signed else np.uint8)
    packed = packed_nibbles(values.reshape(2, 8))
    np.testing.assert_array_equal(unpack_bits(packed.tobytes(), dtype, 16), values)


def test_an_interrupted_weight_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "weight.bin"
    with pytest.raises(KeyboardInterrupt), WeightWriter(path):
        raise KeyboardInterrupt
    from mobilepack.errors import UsageError

    with pytest.raises(UsageError, match=r"weight\.bin"):
        open_weight_file("weight.bin", memoryview(path.read_bytes()))


FILES = {"a/x.txt": b"hello", "a/b/big": b"z" * 100, "c.json": b"{}"}


def test_a_flat_directory_comes_back() -> None:
    sizes = {path: len(data) for path, data in FILES.items()}
    blob = b"".join(FILES.values()) + flat_index("root", sizes)
    found = open_flat_directory("blob", memoryview(blob))
    assert {path: bytes(found.read(path)) for path in FILES} == FILES


@pytest.mark.slow
def test_a_flat_directory_is_executorch_s_own(tmp_path: Path) -> None:
    """The same files in the order that ExecuTorch takes them are the same bytes."""
    spec = importlib.util.find_spec("executorch")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "backends/apple/coreml"
    (library,) = folder.glob("executorchcoreml*.so")
    loader = importlib.util.spec_from_file_location("executorchcoreml", library)
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "x").write_bytes(b"hello")
    (root / "b").write_bytes(b"{}")
    theirs = module.flatten_directory_contents(str(root))
    ours = open_flat_directory("theirs", memoryview(theirs))
    assert {path: bytes(data) for path, data in ours.files.items()} == {"a/x": b"hello", "b": b"{}"}
    text = flat_index("root", {"a/x": 5, "b": 2})
    assert sorted(text) == sorted(theirs[7:])  # numbers of nodes may differ, nothing else


def test_several_functions_need_ios_18(tmp_path: Path) -> None:
    functions = [FunctionWriter(name, "CoreML7") for name in ("one", "two")]
    with pytest.raises(ValueError, match="iOS 18"):
        write_mlpackage(tmp_path, functions, "one", {})


def test_equal_names_become_different_ones() -> None:
    function = FunctionWriter("main", "CoreML8")
    kind = TensorType(DType.FLOAT16, (1, 2))
    function.input("x", kind)
    names = [function.operation("relu", "x", (kind,), {})[0] for _ in range(3)]
    assert len({*names, "x"}) == 4


def test_equal_constants_are_one() -> None:
    function = FunctionWriter("main", "CoreML8")
    first = function.constant("a", np.array([1, 2], np.int32))
    assert function.constant("b", np.array([1, 2], np.int32)) == first
    assert function.constant("b", np.array([1, 3], np.int32)) != first
    assert function.constant("b", np.array([1, 2], np.float16)) != first
