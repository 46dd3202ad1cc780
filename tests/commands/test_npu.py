"""What inspect says of a QNN package: contexts, traffic, a bound, and the gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.npu import decode_bound, npu_share
from mobilepack.contract.base import content_id
from mobilepack.contract.manifest import BuildPlan, Manifest, Placement
from mobilepack.contract.npu import Npu, NpuContext, NpuGraph
from mobilepack.contract.package import open_package
from tests.packages import toy_package

READS, WRITES = 91_000_000, 3_000_000
PROGRAMS = ("model.pte", "model.phone.pte")


def context(program: str, methods: tuple[str, ...]) -> NpuContext:
    return NpuContext(program=program, shard=0, methods=methods, bytes=1000, sha256="0" * 64)


def graph(program: str, method: str, reads: int | None) -> NpuGraph:
    return NpuGraph(
        program=program, shard=0, method=method, operators=4, read_bytes=reads, write_bytes=WRITES,
        spill_bytes=0, fill_bytes=0,
    )  # fmt: skip


def npu(reads: int | None = READS) -> Npu:
    emulator, phone = PROGRAMS
    return Npu(
        emulator_program=emulator,
        phone_program=phone,
        contexts=(context(emulator, ("decode",)), context(phone, ("prefill", "decode"))),
        graphs=(
            graph(emulator, "decode", 2 * READS),
            graph(phone, "prefill", 5),
            graph(phone, "decode", reads),
        ),
        graphs_sha256={"prefill": "1" * 64, "decode": "2" * 64},
        weights_sha256="3" * 64,
    )


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = toy_package(tmp_path / "qnn")
    change(root, npu=npu().model_dump())
    data = json.loads((root / "manifest.json").read_text())
    data["plan"] |= {"backend": "qnn", "soc_model": "SM8650"}
    data["plan_id"] = content_id(BuildPlan.parse(json.dumps(data["plan"]), "plan"))
    (root / "manifest.json").write_text(json.dumps(data))
    return root


def change(root: Path, **values: Any) -> None:
    data = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps(data | values))


def manifest(package: Path) -> Manifest:
    return Manifest.read(package / "manifest.json")


def test_the_bound_is_what_the_phone_s_program_moves_by_the_memory_s_bandwidth(
    package: Path,
) -> None:
    bound = decode_bound(manifest(package))
    assert bound is not None
    assert bound.moved_bytes == READS + WRITES
    assert bound.gb_per_s == 76.8  # targets/soc/SM8650.toml
    assert bound.step_ms == pytest.approx(94e6 / 76.8e9 * 1000)
    assert bound.tok_per_s * bound.step_ms == pytest.approx(1000)


def test_without_a_figure_there_is_no_bound(package: Path) -> None:
    change(package, npu=npu(reads=None).model_dump())
    assert decode_bound(manifest(package)) is None
    change(package, npu=None)
    assert decode_bound(manifest(package)) is None


def test_the_share_is_the_lesser_one(package: Path) -> None:
    placement = Placement(
        delegates=1, delegated_operators=9, fallback_operators=1, delegated_weight_bytes=30,
        fallback_weight_bytes=10, fallback=(),
    )  # fmt: skip
    change(package, placement=placement.model_dump())
    assert npu_share(manifest(package)) == 0.75


def test_either_program_has_its_place(package: Path) -> None:
    opened = open_package(package)
    assert opened.program == package / "model.pte"
    assert opened.phone_program == package / "model.phone.pte"
    assert open_package(toy_package(package.parent / "plain")).phone_program.name == "model.pte"


def test_inspect_says_it_and_marks_the_estimate(run: Callable[..., Any], package: Path) -> None:
    ran = run("inspect", package)
    assert ran.code == 0
    assert "model.phone.pte for a phone: 1 shard, 1.0 kB" in ran.out
    assert "decode: reads 91.0 MB, writes 3.0 MB" in ran.out
    assert "817 tok/s of decode, an estimate" in ran.out
    assert "no measurement" in ran.out


@pytest.mark.parametrize(("least", "code"), [("1", 0), ("0.5", 0)])
def test_the_gate_passes(run: Callable[..., Any], package: Path, least: str, code: int) -> None:
    assert run("inspect", package, "--min-npu-share", least).code == code


def test_the_gate_fails_what_runs_elsewhere(run: Callable[..., Any], package: Path) -> None:
    data = json.loads((package / "manifest.json").read_text())
    change(package, placement=data["placement"] | {"fallback_operators": 1})
    ran = run("inspect", package, "--min-npu-share", "0.95")
    assert ran.code == 3
    assert "the delegate runs 90.0%, asked for is 95.0%" in ran.err


def test_a_checkpoint_has_no_share(run: Callable[..., Any]) -> None:
    ran = run("inspect", "--min-npu-share", "1")
    assert ran.code == 2
    assert "only a package has a delegate" in ran.err


def test_talking_to_an_emulated_package_says_so(package: Path) -> None:
    from mobilepack.cli.chat import emulated_text

    assert "NOT REPRESENTATIVE" in emulated_text(package)
    assert emulated_text(toy_package(package.parent / "plain")) == ""
