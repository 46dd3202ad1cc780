"""A header is believed only where it is whole and sound; nothing but a clear error escapes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilepack.errors import MobilepackError, UsageError
from mobilepack.models.gguf.file import GgufFile
from mobilepack.models.weights import open_model


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, sizes: tuple[int, ...], kind: int, offset: int) -> bytes:
    axes = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
    return text(name) + axes + struct.pack("<IQ", kind, offset)


def whole(entries: list[bytes], tensors: list[bytes], data: int = 0, *, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32 + data)


GOOD = whole(
    [entry("a", 4, struct.pack("<I", 7)), entry("b", 8, text("x"))],
    [tensor("t", (32, 2), 8, 0), tensor("u", (4,), 0, 96)],
    112,
)


def opened(folder: Path, raw: bytes) -> GgufFile:
    path = folder / "x.gguf"
    path.write_bytes(raw)
    return GgufFile.open(path)


def refused(folder: Path, raw: bytes) -> UsageError:
    with pytest.raises(UsageError) as caught:
        opened(folder, raw)
    error = caught.value
    assert error.what
    assert error.why
    assert error.next
    return error


@pytest.mark.parametrize("version", [2, 3])
def test_a_sound_file_opens(tmp_path: Path, version: int) -> None:
    file = opened(tmp_path, GOOD[:4] + struct.pack("<I", version) + GOOD[8:])
    assert dict(file.metadata) == {"a": 7, "b": "x"}
    assert {name: (i.dtype, i.shape, i.nbytes) for name, i in file.tensors.items()} == {
        "t": ("Q8_0", (2, 32), 68),
        "u": ("F32", (4,), 16),
    }
    assert file.tensors["u"].offset == file.tensors["t"].offset + 96


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for length in range(len(GOOD)):
        assert refused(tmp_path, GOOD[:length]).code in ("truncated-weights", "invalid-gguf")


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    values = {
        "u8": (0, b"\xff", 255),
        "i8": (1, b"\xff", -1),
        "u16": (2, b"\xff\xff", 65535),
        "i16": (3, b"\xff\xff", -1),
        "u32": (4, b"\xff" * 4, 2**32 - 1),
        "i32": (5, b"\xff" * 4, -1),
        "f32": (6, struct.pack("<f", 1e-5), 1e-5),
        "bool": (7, b"\x01", True),
        "text": (8, text("né"), "né"),
        "texts": (9, struct.pack("<IQ", 8, 2) + text("a") + text(""), ["a", ""]),
        "bools": (9, struct.pack("<IQ", 7, 2) + b"\x01\x00", [True, False]),
        "numbers": (9, struct.pack("<IQ2h", 3, 2, -5, 6), [-5, 6]),
        "u64": (10, b"\xff" * 8, 2**64 - 1),
        "i64": (11, b"\xff" * 8, -1),
        "f64": (12, struct.pack("<d", 0.1), 0.1),
    }
    raw = whole([entry(key, kind, packed) for key, (kind, packed, _) in values.items()], [])
    assert dict(opened(tmp_path, raw).metadata) == {k: v for k, (_, _, v) in values.items()}


HUGE = struct.pack("<Q", 2**63)
BROKEN = {
    "another magic": (b"GGML" + GOOD[4:], "begins with"),
    "version 1": (GOOD[:4] + struct.pack("<I", 1) + GOOD[8:], "version 1"),
    "version 9": (GOOD[:4] + struct.pack("<I", 9) + GOOD[8:], "version 9"),
    "big-endian": (GOOD[:4] + struct.pack(">I", 3) + GOOD[8:], "big-endian"),
    "many tensors": (GOOD[:8] + HUGE + GOOD[16:], "claims"),
    "many entries": (GOOD[:16] + HUGE + GOOD[24:], "claims"),
    "a key twice": (whole([entry("a", 0, b"1"), entry("a", 0, b"1")], []), "'a' appears twice"),
    "a long key": (whole([struct.pack("<Q", 2**40) + bytes(64)], []), "name of 1099511627776"),
    "an unknown kind": (whole([entry("a", 13, bytes(8))], []), "unknown type 13"),
    "a third truth": (whole([entry("a", 7, b"\x02")], []), "boolean 2"),
    "no UTF-8": (whole([entry("a", 8, text(b"\xff"))], []), "not UTF-8"),
    "arrays of arrays": (whole([entry("a", 9, struct.pack("<IQ", 9, 1))], []), "array"),
    "a huge array": (whole([entry("a", 9, struct.pack("<IQ", 8, 2**60))], []), "does not fit"),
    "an odd alignment": (
        whole([entry("general.alignment", 4, struct.pack("<I", 48))], []),
        "power of two",
    ),
    "a tensor twice": (whole([], [tensor("t", (4,), 0, 0)] * 2, 64), "'t' appears twice"),
    "no axes": (whole([], [tensor("t", (), 0, 0)], 64), "0 axes"),
    "five axes": (whole([], [tensor("t", (1,) * 5, 0, 0)], 64), "5 axes"),
    "an empty axis": (whole([], [tensor("t", (0,), 0, 0)], 64), "sizes [0]"),
    "an overflow": (whole([], [tensor("t", (2**32, 2**32), 0, 0)], 64), "sizes"),
    "an unknown type": (whole([], [tensor("t", (4,), 4, 0)], 64), "unknown type 4"),
    "half a block": (whole([], [tensor("t", (48,), 8, 0)], 64), "whole blocks of 32"),
    "an odd place": (whole([], [tensor("t", (4,), 0, 8)], 64), "no multiple of 32"),
    "an overlap": (
        whole([], [tensor("t", (32,), 0, 0), tensor("u", (4,), 0, 64)], 256),
        "'u' overlaps",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_header_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    raw, part = BROKEN[case]
    error = refused(tmp_path, raw)
    assert error.code == "invalid-gguf"
    assert part in error.why


@pytest.mark.parametrize(("kind", "name", "size"), [(16, "IQ2_XXS", 66), (39, "MXFP4", 136)])
def test_a_type_that_cannot_be_read_is_named_with_its_tensor(
    tmp_path: Path, kind: int, name: str, size: int
) -> None:
    error = refused(tmp_path, whole([], [tensor("blk.0.attn_q.weight", (256,), kind, 0)], size))
    assert error.code == "gguf-type"
    assert f"blk.0.attn_q.weight is {name}" in error.why
    assert "Q4_K" in error.next


def test_a_long_text_array_costs_no_more_than_the_file_has(tmp_path: Path) -> None:
    count = struct.pack("<IQ", 8, 1000)
    error = refused(tmp_path, whole([entry("a", 9, count + text("x") * 100)], []))
    assert "does not fit" in error.why


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a tiny llama written by the gguf package."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in {
        "block_count": 1,
        "context_length": 8,
        "embedding_length": 4,
        "feed_forward_length": 4,
        "attention.head_count": 1,
    }.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["a", "b", "ab", "<s>"])
    writer.add_token_types([1, 1, 1, 3])
    writer.add_token_merges(["a b"])
    ones = np.ones(4, dtype=np.float32)
    square = np.ones((4, 4), dtype=np.float32)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", ones)
    parts = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    for name in ("token_embd", *(f"blk.0.{part}" for part in parts)):
        writer.add_tensor(f"{name}.weight", square)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_the_tiny_model_opens(tmp_path: Path, model_bytes: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(model_bytes)
    model = open_model(path)
    assert model.spec.tied_head
    model.close()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_is_an_error_of_ours_or_none(
    tmp_path: Path, model_bytes: bytes, data: st.DataObject
) -> None:
    raw = bytearray(model_bytes)
    header = raw.index(bytes(np.ones(4, dtype=np.float32)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, header - 1))
        size = data.draw(st.sampled_from((1, 4, 8)))
        raw[at : at + size] = data.draw(st.binary(min_size=size, max_size=size))
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    read: Callable[[], object] = lambda: open_model(path).close()  # noqa: E731
    try:
        read()
    except MobilepackError as error:
        assert error.what  # noqa: PT017
        assert error.why  # noqa: PT017
        assert error.next  # noqa: PT017
