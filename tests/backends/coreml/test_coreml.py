"""Core ML packages: built on Linux, run by our interpreter, held against eager PyTorch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilepack.backends.coreml.weights import PackagedParameters
from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.verify import verify
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import file_entry, open_package
from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.errors import RunFailedError, UsageError
from mobilepack.harness.host import HostHarness
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.mil.proto import messages
from mobilepack.models.weights import open_model
from mobilepack.models.zoo import embedded_path
from mobilepack.pipeline.plan import Choices, plan_build
from mobilepack.target import load_target, target_names

SHORT = {"max_seq_len": 64, "prefill_chunk": 32}


class TestPlan:
    @pytest.mark.parametrize(
        ("target", "choices", "why"),
        [
            ("coreml-ios17", {"linear": "4w"}, "from iOS 18 on"),
            ("coreml", {"linear": "4p", "ios": 17}, "from iOS 18 on"),
            ("coreml-ios18", {"group_size": 32}, "CPU and the GPU"),
            ("coreml-ios18", {"linear": "4w", "group_size": 32}, "CPU and the GPU"),
            ("coreml-ios18", {"linear": "4p", "group_size": 32}, "groups of 8 or 16"),
            ("coreml-ios26", {"linear": "8da4w"}, "fp16, 8w, 4w, 4p"),
            ("coreml-ios26", {"embedding": "4w"}, "it is 8w then"),
            ("coreml", {"ios": 16}, "known are 17, 18, 26"),
            ("coreml", {"states": True}, "a state for each method"),
            ("coreml-ios17", {"states": True}, "states came after iOS 17"),
            ("coreml-ios18", {"states": True, "lowering": "reference"}, "as inputs"),
            ("coreml", {"lowering": "reference"}, "no .pte"),
            ("coreml-ios17", {"lowering": "reference"}, "several functions"),
            ("coreml-ios18", {"weight_limit_mb": 2000}, "iOS 18 loads at most 1000 MB"),
            ("xnnpack", {"ios": 18}, "knows nothing of iOS"),
            ("xnnpack", {"states": True}, "knows nothing of iOS"),
            ("qnn", {"weight_limit_mb": 5}, "knows nothing of iOS"),
        ],
    )
    def test_what_a_system_or_the_engine_lacks_is_refused_with_the_reason(
        self, target: str, choices: dict[str, Any], why: str
    ) -> None:
        model = open_model(str(embedded_path()))
        with pytest.raises(UsageError) as caught:
            plan_build(model, load_target(target), Choices(**choices))
        assert why in caught.value.why

    @pytest.mark.parametrize(
        ("target", "choices", "name"),
        [
            ("coreml", {}, "coreml"),
            ("coreml", {"ios": 26}, "coreml-pte-ios26"),
            ("coreml-mlpackage", {"ios": 26, "states": True}, "coreml-mlpackage-ios26-states"),
        ],
    )
    def test_no_two_packages_have_one_name(
        self, target: str, choices: dict[str, Any], name: str
    ) -> None:
        model = open_model(str(embedded_path()))
        plan = plan_build(model, load_target(target), Choices(**choices))
        assert plan.target == name
        assert name == target or name not in target_names()


def built(factory: pytest.TempPathFactory, target: str, **choices: Any) -> Path:
    options = BuildOptions(
        out=factory.mktemp("coreml"), targets=(target,), choices=Choices(**SHORT, **choices)
    )
    return build(options)[0].folder


@pytest.fixture(scope="module")
def int4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory, "coreml-ios18", linear="4w")


@pytest.mark.slow
class TestProof:
    """The embedded model, trained weights; prefill and more than 32 decode steps."""

    @pytest.mark.parametrize(
        ("target", "choices", "cosine"),
        [
            ("coreml-ios18", {"linear": "fp16"}, 0.9999),
            ("coreml-ios17", {"linear": "8w"}, 0.999),
            ("coreml-ios26", {"linear": "4p", "group_size": 8}, 0.999),
            ("coreml", {"linear": "4w"}, 0.999),
            ("coreml", {"linear": "fp16", "weight_limit_mb": 3}, 0.9999),
            ("coreml-mlpackage", {"linear": "fp16", "lowering": "reference"}, 0.9999),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_the_package_computes_what_pytorch_computes(
        self,
        target: str,
        choices: dict[str, Any],
        cosine: float,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        check(built(tmp_path_factory, target, **choices), cosine)

    def test_int4(self, int4: Path) -> None:
        check(int4, 0.999)

    def test_a_damaged_weight_is_caught(self, int4: Path, tmp_path: Path) -> None:
        package = Path(shutil.copytree(int4, tmp_path / "damaged"))
        weights = next((package / "model.mlpackage").rglob("weight.bin"))
        raw = bytearray(weights.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        weights.write_bytes(raw)
        with pytest.raises(UsageError, match=r"weight\.bin"):
            open_package(package)

    def test_a_truncated_weight_file_is_a_report(self, int4: Path, tmp_path: Path) -> None:
        package = Path(shutil.copytree(int4, tmp_path / "truncated"))
        weights = next((package / "model.mlpackage").rglob("weight.bin"))
        weights.write_bytes(weights.read_bytes()[:5000])
        plan = RunPlan(
            program="model.mlpackage",
            max_seq_len=64,
            prefill_chunk=32,
            items=(Teacher(name="t", token_ids=(1, 2), calls=(2,)),),
        )
        with pytest.raises(RunFailedError, match=r"weight\.bin") as caught:
            HostHarness().run(package, plan, log=tmp_path / "log")
        assert "truncated" in caught.value.why
        assert "Traceback" not in caught.value.why

    def test_the_form_is_the_neural_engine_s(self, int4: Path) -> None:
        program = open_mlpackage(int4 / "model.mlpackage")
        assert set(program.functions) == {"prefill", "decode"}
        for function in program.functions.values():
            kinds = {op.type for op in function.block.operations}
            assert "linear" not in kinds
            assert not kinds & {"read_state", "write_state", "coreml_update_state"}
            floats = [one for one in function.inputs if "fp" in str(one.type)]
            assert floats
            assert all("fp16" in str(one.type) for one in floats)

    def test_weights_are_shared_by_both_functions(self, int4: Path) -> None:
        manifest = open_package(int4).manifest
        size = sum(e.bytes for e in manifest.files if e.path.endswith("weight.bin"))
        assert size < 1.1 * manifest.memory.parameters_bytes + 100_000

    def test_what_was_compressed_is_a_rounding_of_the_original(self, int4: Path) -> None:
        model = open_model(str(embedded_path()))
        decode = open_mlpackage(int4 / "model.mlpackage").functions["decode"]
        packaged = PackagedParameters(model.weights, [decode])
        matrices = [n for n in model.weights.names() if len(model.weights.shape(n)) == 2]
        assert sorted(packaged.compressed) == sorted(matrices)
        for name in packaged.compressed:
            levels = 127 if name in ("embed.weight", "head.weight") else 7
            original, found = model.weights.tensor(name), packaged.tensor(name)
            flat = original.reshape(original.shape[0], -1)
            step = flat.abs().amax(1, keepdim=True) / levels
            error = (found.reshape(flat.shape) - flat).abs()
            assert torch.all(error <= 0.5 * step + 2e-3 * flat.abs() + 1e-6), name


def without_a_write(package: Path, function: str, state: str) -> None:
    """Drop one write of a state from a package, as a conversion that loses it would.

    The manifest is put right: only running the program can tell.
    """
    path = next((package / "model.mlpackage").rglob("model.mlmodel"))
    model = messages().Model()
    model.ParseFromString(path.read_bytes())
    block = model.mlProgram.functions[function].block_specializations["CoreML8"]
    kept = [op for op in block.operations if not _writes(op, state)]
    assert len(kept) == len(block.operations) - 1
    del block.operations[:]
    block.operations.extend(kept)
    path.write_bytes(model.SerializeToString())
    manifest = Manifest.read(package / "manifest.json")
    name = path.relative_to(package).as_posix()
    files = tuple(file_entry(package, e.path) if e.path == name else e for e in manifest.files)
    changed = manifest.model_copy(update={"files": files})
    (package / "manifest.json").write_text(changed.to_json())


def _writes(operation: Any, state: str) -> bool:
    return operation.type == "write_state" and operation.inputs["input"].arguments[0].name == state


@pytest.fixture(scope="module")
def stateful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory, "coreml-mlpackage", linear="8w", states=True)


@pytest.mark.slow
class TestStates:
    def test_the_package_computes_what_pytorch_computes(self, stateful: Path) -> None:
        check(stateful, 0.999)

    @pytest.mark.parametrize(("function", "state"), [("decode", "v_3"), ("prefill", "k_0")])
    def test_a_dropped_write_is_caught(
        self, function: str, state: str, stateful: Path, tmp_path: Path
    ) -> None:
        """coremltools#2188: a conversion that loses a state's write says nothing."""
        broken = Path(shutil.copytree(stateful, tmp_path / "broken"))
        without_a_write(broken, function, state)
        result = verify(broken)
        assert not result.parity.passed
        failed = [row for row in result.parity.rows if row.status == "failed"]
        assert any("eager" in row.against for row in failed)


def check(package: Path, cosine: float) -> None:
    result = verify(package)
    assert result.parity.passed
    found = [
        metric.value
        for row in result.parity.rows
        for metric in row.metrics
        if metric.name == "cosine_min" and metric.limit is not None
    ]
    assert found
    assert min(found) >= cosine
    decoded = [row for row in result.parity.rows if "decode steps" in row.check]
    assert sum(row.compared for row in decoded) > 32
    assert np.isfinite(found).all()
