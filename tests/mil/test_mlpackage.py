"""Reading packages: what is read, and what is refused."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilepack.errors import MissingError, MobilepackError, UsageError
from mobilepack.mil.interpreter import Interpreter
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.mil.opened import open_any
from mobilepack.mil.storage import HEADER_BYTES, open_weight_file, unpack_bits
from mobilepack.mil.types import DType, TensorType
from tests.mil.packages import Weights, Writer, linear_package, packed

INNER = Path("Data/com.apple.CoreML")
WEIGHTS = INNER / "weights" / "weight.bin"
SPEC = INNER / "model.mlmodel"
SUB_BYTE = [dtype for dtype in DType if dtype.is_sub_byte]


def test_a_package_is_read_with_its_types_and_its_weights_stay_in_the_file(tmp_path: Path) -> None:
    path, weight = linear_package(tmp_path / "m.mlpackage")
    program = open_mlpackage(path)
    function = program.functions["main"]
    assert [str(item.type) for item in function.tensors] == ["fp16[1, 6]"]
    assert [(o.name, str(o.type)) for o in function.outputs] == [("z", "fp16[1, 8]")]
    constant = function.block.operations[0].attributes["val"]
    stored = constant.array()
    assert stored.base is not None  # a view of the mapped file
    assert np.array_equal(stored, weight)


@pytest.mark.parametrize("dtype", SUB_BYTE, ids=lambda dtype: dtype.label)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_sub_byte_elements_survive_packing(dtype: DType, data: st.DataObject) -> None:
    low, high = (-(1 << (dtype.bits - 1)), 1 << (dtype.bits - 1))
    if not dtype.is_signed:
        low, high = 0, 1 << dtype.bits
    values = np.array(data.draw(st.lists(st.integers(low, high - 1), min_size=1, max_size=40)))
    assert unpack_bits(packed(values, dtype), dtype, len(values)).tolist() == values.tolist()


@pytest.mark.parametrize("dtype", [DType.UINT3, DType.UINT6], ids=lambda dtype: dtype.label)
def test_elements_that_cross_bytes_are_unpacked_beyond_one_piece(
    dtype: DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobilepack.mil.storage.PIECE", 16)
    values = np.random.default_rng(0).integers(0, 1 << dtype.bits, 53)
    assert unpack_bits(packed(values, dtype), dtype, 53).tolist() == values.tolist()


def _truncate_weights(package: Path) -> None:
    data = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(data[:-64])


def _no_weights(package: Path) -> None:
    (package / WEIGHTS).unlink()


def _weights_of_a_newer_version(package: Path) -> None:
    data = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(struct.pack("<II", 1, 3) + data[8:])


def _wrong_magic(package: Path) -> None:
    data = bytearray((package / WEIGHTS).read_bytes())
    data[HEADER_BYTES : HEADER_BYTES + 4] = b"\1\2\3\4"
    (package / WEIGHTS).write_bytes(data)


def _other_element_type(package: Path) -> None:
    data = bytearray((package / WEIGHTS).read_bytes())
    data[HEADER_BYTES + 4] = 2
    (package / WEIGHTS).write_bytes(data)


def _too_small_a_blob(package: Path) -> None:
    data = bytearray((package / WEIGHTS).read_bytes())
    data[HEADER_BYTES + 8 : HEADER_BYTES + 16] = struct.pack("<Q", 4)
    (package / WEIGHTS).write_bytes(data)


def _encrypted_spec(package: Path) -> None:
    random = np.random.default_rng(0).integers(0, 256, 4096).astype("u1")
    (package / SPEC).write_bytes(random.tobytes())


def _empty_spec(package: Path) -> None:
    (package / SPEC).write_bytes(b"")


def _truncated_spec(package: Path) -> None:
    (package / SPEC).write_bytes((package / SPEC).read_bytes()[:-7])


def _manifest(package: Path, **changes: object) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    (package / "Manifest.json").write_text(json.dumps(manifest | changes))


def _leads_out(package: Path) -> None:
    entries = {"A": {"path": "../../../../etc/passwd"}}
    _manifest(package, itemInfoEntries=entries)


def _absolute(package: Path) -> None:
    _manifest(package, itemInfoEntries={"A": {"path": "/etc/passwd"}})


def _link(package: Path) -> None:
    (package / SPEC).unlink()
    (package / SPEC).symlink_to("/etc/hostname")


def _no_root(package: Path) -> None:
    _manifest(package, rootModelIdentifier="Z")


def _manifest_of_a_newer_version(package: Path) -> None:
    _manifest(package, fileFormatVersion="2.0.0")


def _manifest_not_json(package: Path) -> None:
    (package / "Manifest.json").write_text("{")


def _no_manifest(package: Path) -> None:
    (package / "Manifest.json").unlink()


HOSTILE: dict[Callable[[Path], None], str] = {
    _truncate_weights: "truncated",
    _no_weights: "weight.bin",
    _weights_of_a_newer_version: "version 3",
    _wrong_magic: "0xdeadbeef",
    _other_element_type: "holds fp32, the program says fp16",
    _too_small_a_blob: "has 4 bytes",
    _encrypted_spec: "encrypted",
    _empty_spec: "specificationVersion",
    _truncated_spec: "truncated",
    _leads_out: "not inside",
    _absolute: "not inside",
    _link: "leads out",
    _no_root: "root model",
    _manifest_of_a_newer_version: "2.0.0",
    _manifest_not_json: "not JSON",
    _no_manifest: "Manifest.json",
}


@pytest.mark.parametrize("harm", HOSTILE, ids=lambda harm: harm.__name__.strip("_"))
def test_a_damaged_package_is_one_clear_error(harm: Callable[[Path], None], tmp_path: Path) -> None:
    path, _ = linear_package(tmp_path / "m.mlpackage")
    harm(path)
    with pytest.raises(UsageError) as caught:
        open_any(path)  # whatever is done then: `show` and `lint` read no weights
    assert HOSTILE[harm] in f"{caught.value.what} {caught.value.why}"
    assert caught.value.next


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), data=st.data())
def test_a_flipped_byte_never_escapes_as_something_else(
    place: int, value: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, _ = linear_package(tmp_path_factory.mktemp("p") / "m.mlpackage")
    file = path / data.draw(st.sampled_from([SPEC, WEIGHTS]))
    raw = bytearray(file.read_bytes())
    raw[place % len(raw)] = value
    file.write_bytes(raw)
    with contextlib.suppress(MobilepackError):
        Interpreter(open_any(path).only()).run({"x": np.zeros((1, 6), "f4")})


def test_a_neural_network_is_refused_with_the_way_out(tmp_path: Path) -> None:
    writer = Writer()
    writer.model.neuralNetwork.SetInParent()
    with pytest.raises(UsageError, match="neuralNetwork") as caught:
        open_mlpackage(writer.save(tmp_path / "m.mlpackage"))
    assert "mlprogram" in caught.value.next


def test_a_package_for_an_unknown_system_is_refused(tmp_path: Path) -> None:
    writer = Writer()
    writer.model.mlProgram.functions["main"].opset = "CoreML42"
    with pytest.raises(UsageError, match="CoreML42"):
        open_mlpackage(writer.save(tmp_path / "m.mlpackage"))


@pytest.mark.parametrize(
    ("version", "words"),
    [(99, "version 99; the newest known is 10"), (7, "CoreML8 .iOS18., which")],
)
def test_a_package_says_the_system_that_its_functions_are_of(
    version: int, words: str, tmp_path: Path
) -> None:
    writer = Writer()
    x = writer.input("x", ("fp16", (2,)))
    writer.returns(writer.add("relu", ("y", ("fp16", (2,))), x=x))
    writer.model.specificationVersion = version
    with pytest.raises(UsageError, match=words):
        open_mlpackage(writer.save(tmp_path / "m.mlpackage"))


def _as_dictionary(description: Any) -> None:
    description.input.add(name="x").type.dictionaryType.stringKeyType.SetInParent()


def _of_another_name(description: Any) -> None:
    description.input.add(name="tokens").type.multiArrayType.dataType = 65552


def _of_another_type(description: Any) -> None:
    description.input.add(name="x").type.multiArrayType.dataType = 131104


def _of_another_function(description: Any) -> None:
    item = description.functions.add(name="prefill").input.add(name="x")
    item.type.multiArrayType.dataType = 65552


@pytest.mark.parametrize(
    ("describe", "words"),
    [
        (_as_dictionary, "'x' of 'main' is described as a dictionary"),
        (_of_another_name, "describes an input 'tokens' that 'main' does not take"),
        (_of_another_type, "describes 'x' of 'main' as int32, the program takes fp16"),
        (_of_another_function, "describes the function 'prefill', which it does not have"),
    ],
)
def test_a_description_that_the_program_does_not_answer_to_is_refused(
    describe: Callable[[Any], None], words: str, tmp_path: Path
) -> None:
    writer = Writer()
    x = writer.input("x", ("fp16", (2,)))
    writer.returns(writer.add("relu", ("y", ("fp16", (2,))), x=x))
    describe(writer.model.description)
    with pytest.raises(UsageError, match=words):
        open_mlpackage(writer.save(tmp_path / "m.mlpackage"))


@pytest.mark.parametrize(("name", "word"), [("x", "compiled"), ("encryptionInfo", "encrypted")])
def test_a_compiled_model_is_refused(name: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "coremldata.bin").write_bytes(b"\0")
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=word):
        open_any(tmp_path)


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        open_any(tmp_path / "nothing.mlpackage")


def test_a_value_that_nothing_computes_is_refused(tmp_path: Path) -> None:
    writer = Writer()
    writer.returns(writer.add("relu", ("y", ("fp16", (1,))), x="ghost"))
    with pytest.raises(UsageError, match="'ghost'"):
        open_mlpackage(writer.save(tmp_path / "m.mlpackage"))


def test_a_constant_outside_the_package_is_refused(tmp_path: Path) -> None:
    writer = Writer()
    writer.stored("w", np.zeros(4), "fp16")
    value = writer.block.operations[0].attributes["val"]
    value.blobFileValue.fileName = "@model_path/../../../etc/passwd"
    with pytest.raises(UsageError, match="not inside"):
        open_mlpackage(writer.save(tmp_path / "m.mlpackage"))


def test_a_weight_file_checks_the_type_that_it_is_asked_for() -> None:
    weights = Weights()
    offset = weights.add(DType.UINT4, b"\x21")
    file = open_weight_file("w", memoryview(bytes(weights.data)))
    assert bytes(file.blob(offset, TensorType(DType.UINT4, (2,)))) == b"\x21"
    with pytest.raises(UsageError, match="uint4"):
        file.blob(offset, TensorType(DType.INT4, (2,)))
