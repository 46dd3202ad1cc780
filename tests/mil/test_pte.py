"""ExecuTorch programs with Core ML delegates, by hand: what is read, and what is refused."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilepack.errors import MissingError, MobilepackError, UsageError
from mobilepack.mil.flat_directory import open_flat_directory
from mobilepack.mil.opened import open_any
from mobilepack.mil.pte import open_pte
from mobilepack.mil.pte_run import PteRunner
from tests.mil.packages import linear_package

FLOAT = 6


def flattened(files: dict[str, bytes]) -> bytes:
    """Return a folder as the delegate stores it: bytes, then its index backwards."""
    body, nodes = b"", []
    tree: dict[str, Any] = {}
    for path, data in files.items():
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = data

    def add(name: str, item: Any) -> int:
        nonlocal body
        node: dict[str, Any] = {"name": name, "children": {}, "kind": int(isinstance(item, dict))}
        node["dataRegion"] = {"offset": 0, "size": 0}
        if isinstance(item, dict):
            node["children"] = {key: add(key, value) for key, value in item.items()}
        else:
            node["dataRegion"] = {"offset": len(body), "size": len(item)}
            body += item
        nodes.append(node)
        return len(nodes) - 1

    add("lowered_module", tree)
    return body + json.dumps({"nodes": nodes}).encode()[::-1]


def delegate_blob(folder: Path) -> bytes:
    """Return the blob of a delegate around `linear_package`."""
    path, _ = linear_package(folder / "model.mlpackage")
    files = {
        f"model.mlpackage/{file.relative_to(path).as_posix()}": file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }
    files["metadata.json"] = json.dumps({"inputNames": ["x"], "outputNames": ["z"]}).encode()
    return flattened(files)


class _Tables:
    """A flatbuffer written from the end, table by table."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(0)

    def table(self, fields: dict[int, tuple[str, Any]]) -> int:
        self.builder.StartObject(max(fields, default=0) + 1)
        for slot, (kind, value) in fields.items():
            if kind == "offset":
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                getattr(self.builder, f"Prepend{kind}Slot")(slot, value, 0)
        return int(self.builder.EndObject())

    def offsets(self, items: list[int]) -> int:
        self.builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.builder.PrependUOffsetTRelative(item)
        return int(self.builder.EndVector())

    def numbers(self, items: list[int]) -> int:
        self.builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.builder.PrependInt32(item)
        return int(self.builder.EndVector())


def program(blob: bytes, *, backend: str = "CoreMLBackend") -> bytes:
    """Return a program whose method `forward` calls one delegate with x [1, 6] → z [1, 8]."""
    t = _Tables()
    values = []
    for sizes in ([1, 6], [1, 8]):
        vector = t.numbers(sizes)
        tensor = t.table({0: ("Int8", FLOAT), 2: ("offset", vector)})
        values.append(t.table({0: ("Uint8", 5), 1: ("offset", tensor)}))
    call = t.table({0: ("Int32", 0), 1: ("offset", t.numbers([0, 1]))})
    step = t.table({0: ("Uint8", 2), 1: ("offset", call)})
    chain = t.table({2: ("offset", t.offsets([step]))})
    name, identifier = t.builder.CreateString("forward"), t.builder.CreateString(backend)
    where = t.table({1: ("Uint32", 0)})
    delegate = t.table({0: ("offset", identifier), 1: ("offset", where)})
    parts = {
        2: t.offsets(values), 3: t.numbers([0]), 4: t.numbers([1]),
        5: t.offsets([chain]), 7: t.offsets([delegate]),
    }  # fmt: skip
    fields = {slot: ("offset", place) for slot, place in parts.items()}
    plan = t.table({0: ("offset", name), **fields})
    data = t.table({0: ("offset", t.builder.CreateByteVector(blob))})
    plans, inline = t.offsets([plan]), t.offsets([data])
    root = t.table({1: ("offset", plans), 3: ("offset", inline)})
    t.builder.Finish(root, file_identifier=b"ET12")
    return bytes(t.builder.Output())


@pytest.fixture
def pte(tmp_path: Path) -> Path:
    path = tmp_path / "model.pte"
    path.write_bytes(program(delegate_blob(tmp_path)))
    return path


def test_a_method_runs_through_its_delegate(pte: Path, tmp_path: Path) -> None:
    _, weight = linear_package(tmp_path / "again.mlpackage")
    runner = PteRunner(open_pte(pte))
    x = torch.ones(1, 6)
    (result,) = runner.run([x])
    wanted = torch.relu(x @ torch.from_numpy(weight).float().T + torch.arange(8) / 8).half()
    assert torch.equal(result, wanted.float())
    assert {name: str(kind) for name, kind in runner.inputs("forward").items()} == {
        "input_0": "fp32[1, 6]"
    }


def test_files_of_a_delegate_are_not_copied(tmp_path: Path) -> None:
    blob = memoryview(delegate_blob(tmp_path))
    files = open_flat_directory("blob", blob)
    assert all(view.obj is blob.obj for view in files.files.values())
    with pytest.raises(UsageError, match="not inside"):
        files.read("../metadata.json")


def test_a_delegate_of_another_backend_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(program(b"", backend="XnnpackBackend"))
    with pytest.raises(UsageError, match="XnnpackBackend"):
        open_any(path)
    with pytest.raises(UsageError, match="XnnpackBackend"):
        PteRunner(open_pte(path)).run([torch.zeros(1, 6)])


def test_a_method_that_is_not_there_and_wrong_inputs_are_named(pte: Path) -> None:
    runner = PteRunner(open_pte(pte))
    with pytest.raises(UsageError, match="forward"):
        runner.run([torch.zeros(1, 6)], "backward")
    with pytest.raises(UsageError, match="takes 1 inputs, given are 2"):
        runner.run([torch.zeros(1, 6), torch.zeros(1)])


BLOBS = {
    "nothing": b"",
    "no-index": b"\0" * 100,
    "empty-index": b'{"nodes": []}'[::-1],
    "cycle": b'{"nodes":[{"name":"a","kind":1,"children":{"b":0}}]}'[::-1],
    "outside": json.dumps(
        {"nodes": [{"name": "a", "kind": 0, "children": {},
                    "dataRegion": {"offset": 5, "size": 1000}},
                   {"name": "r", "kind": 1, "children": {"a": 0}}]}
    ).encode()[::-1],
    "leads-out": json.dumps(
        {"nodes": [{"name": "a", "kind": 0, "children": {}, "dataRegion": {"offset": 0, "size": 1}},
                   {"name": "r", "kind": 1, "children": {"../a": 0}}]}
    ).encode()[::-1],
    "no-metadata": flattened({"model.mlpackage/Manifest.json": b"{}"}),
    "reference-to-nothing": b'CMJR{"version": 1, "key": "ghost", "functionName": "f"}',
    "reference-not-json": b"CMJR{",
}  # fmt: skip


@pytest.mark.parametrize("name", BLOBS)
def test_a_damaged_delegate_is_one_clear_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(program(BLOBS[name]))
    with pytest.raises(UsageError) as caught:
        open_any(path)
    assert caught.value.code == "invalid-package"


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(UsageError, match="ET12"):
        open_any(path)
    with pytest.raises(MissingError):
        open_pte(tmp_path / "ghost.pte")


def test_a_truncated_program_is_refused_wherever_it_ends(pte: Path) -> None:
    whole = pte.read_bytes()
    for end in np.linspace(8, len(whole) - 1, 40).astype(int):
        pte.write_bytes(whole[:end])
        with pytest.raises(MobilepackError):
            PteRunner(open_pte(pte)).run([torch.zeros(1, 6)])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_changed_number_never_escapes_as_something_else(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("p")
    raw = bytearray(program(delegate_blob(folder)))
    place = data.draw(st.integers(0, len(raw) - 4)) & ~3
    struct.pack_into("<I", raw, place, data.draw(st.integers(0, 2**32 - 1)))
    path = folder / "model.pte"
    path.write_bytes(raw)
    with contextlib.suppress(MobilepackError):
        opened = open_any(path)
        assert opened.pte is not None
        PteRunner(opened.pte).run([torch.zeros(1, 6)])
