"""Core ML packages: built on Linux, run by our interpreter, held against eager PyTorch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilepack.backends.coreml.weights import PackagedParameters
from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.verify import verify
from mobilepack.contract.package import open_package
from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.errors import RunFailedError, UsageError
from mobilepack.harness.host import HostHarness
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.models.weights import open_model
from mobilepack.models.zoo import embedded_path
from mobilepack.pipeline.plan import Choices, plan_build
from mobilepack.target import load_target

SHORT = {"max_seq_len": 64, "prefill_chunk": 32}


class TestPlan:
    def test_int4_on_ios_17_is_refused_with_the_reason(self) -> None:
        model = open_model(str(embedded_path()))
        with pytest.raises(UsageError, match="iOS 18"):
            plan_build(model, load_target("coreml-ios17"), Choices(linear="4w"))

    def test_blocks_of_int4_are_refused_for_the_neural_engine(self) -> None:
        model = open_model(str(embedded_path()))
        with pytest.raises(UsageError, match="CPU and the GPU"):
            plan_build(model, load_target("coreml-ios18"), Choices(group_size=32))

    def test_a_recipe_of_another_backend_is_refused(self) -> None:
        model = open_model(str(embedded_path()))
        with pytest.raises(UsageError, match="fp16, 8w, 4w"):
            plan_build(model, load_target("coreml-ios26"), Choices(linear="8da4w"))


def built(factory: pytest.TempPathFactory, target: str, recipe: str) -> Path:
    options = BuildOptions(
        out=factory.mktemp("coreml"),
        targets=(target,),
        choices=Choices(linear=recipe, **SHORT),  # type: ignore[arg-type]
    )
    return build(options)[0].folder


@pytest.fixture(scope="module")
def int4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory, "coreml-ios18", "4w")


@pytest.mark.slow
class TestProof:
    """The embedded model, trained weights; prefill and more than 32 decode steps."""

    @pytest.mark.parametrize(
        ("target", "recipe", "cosine"),
        [("coreml-ios18", "fp16", 0.9999), ("coreml-ios17", "8w", 0.999)],
    )
    def test_the_package_computes_what_pytorch_computes(
        self, target: str, recipe: str, cosine: float, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        check(built(tmp_path_factory, target, recipe), cosine)

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
        with pytest.raises(RunFailedError, match=r"weight\.bin"):
            HostHarness().run(package, plan, log=tmp_path / "log")

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
        packaged = PackagedParameters(model.weights, int4 / "model.mlpackage")
        assert "layers.0.q.weight" in packaged.compressed
        for name in packaged.compressed:
            levels = 127 if name == "embed.weight" else 7
            original, found = model.weights.tensor(name), packaged.tensor(name)
            flat = original.reshape(original.shape[0], -1)
            step = flat.abs().amax(1, keepdim=True) / levels
            error = (found.reshape(flat.shape) - flat).abs()
            assert torch.all(error <= 0.5 * step + 2e-3 * flat.abs() + 1e-6), name


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
