"""Create, boot, install, push, launch, collect, delete: the real Swift harness, real logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.verify import verify
from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.errors import RunFailedError
from mobilepack.harness.base import Harness
from mobilepack.harness.ios.container import IosApp
from mobilepack.harness.ios.devicectl import Devicectl, DevicectlPhone
from mobilepack.harness.ios.harness import AppHarness
from mobilepack.harness.ios.simulator import Simctl, SimulatorPhone
from mobilepack.harness.ios.tool import Tool
from mobilepack.harness.native.local import NativeHarness
from mobilepack.testing import HARNESS_CHECKS
from mobilepack.testing.apple.install import StandInXcode
from mobilepack.testing.apple.real_app import real_app
from mobilepack.testing.swift import Swift
from tests.ios_demo.conftest import fp32, provisioned, quantised, tools

__all__ = ["fp32", "provisioned", "quantised", "tools"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def app(tools: Swift, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_app(tmp_path_factory.mktemp("app"), tools)


@pytest.fixture
def xcode(tmp_path: Path) -> Iterator[StandInXcode]:
    made = StandInXcode(tmp_path / "xcode")
    made.install()
    yield made
    assert [one for one in made.machines().values() if one.kind == "simulator"] == []


@pytest.fixture
def simulator(xcode: StandInXcode, app: Path) -> AppHarness:
    simctl = Simctl(Tool((str(xcode.folder / "bin/xcrun"), "simctl")))
    return AppHarness(SimulatorPhone(simctl, IosApp.at(app)))


@pytest.mark.parametrize("check", HARNESS_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(
    check: Callable[[Harness, Path, str, Path], None],
    simulator: AppHarness,
    quantised: Path,
    tmp_path: Path,
) -> None:
    check(simulator, quantised, "model.pte", tmp_path / "log.txt")


@pytest.mark.parametrize("kind", ["simulator", "iphone"])
def test_its_logits_are_the_native_runner_s(
    kind: str, simulator: AppHarness, xcode: StandInXcode, app: Path, fp32: Path, tmp_path: Path
) -> None:
    """The same kernels on the same machine: not a bit of float32 is lost on the way."""
    ids = tuple(int(i) for i in np.random.default_rng(0).integers(0, 2048, 64))
    item = Teacher(name="t", token_ids=ids, calls=(32, 7, *(1,) * 25))
    plan = RunPlan(
        max_seq_len=64, prefill_chunk=32, threads=1, sample_ids=tuple(range(2048)), items=(item,)
    )
    harness = simulator
    if kind == "iphone":
        xcode.add_iphone()
        ctl = Devicectl(Tool((str(xcode.folder / "bin/xcrun"), "devicectl")))
        harness = AppHarness(DevicectlPhone(ctl, IosApp.at(app), ctl.phones()[0]))
    ours = harness.run(fp32, plan, log=tmp_path / "log.txt")
    theirs = NativeHarness().run(fp32, plan, log=tmp_path / "log.txt")
    a, b = (np.array([row.sampled for row in result.rows]) for result in (ours, theirs))
    assert a.shape == (27, 2048)
    assert np.array_equal(a, b)
    assert not ours.environment.representative


def test_a_simulator_proves_parity_and_no_latency(simulator: AppHarness, quantised: Path) -> None:
    assert verify(quantised, harness=simulator).parity.passed
    options = BenchOptions(prompt_tokens=(8,), gen_tokens=(4,), repetitions=5, warmups=1)
    timed = bench(quantised, options, harness=simulator)
    assert not timed.bench.representative
    assert {test.trust for test in timed.bench.tests} == {"NOT REPRESENTATIVE"}


def test_a_program_that_cannot_be_loaded_is_named(
    simulator: AppHarness, quantised: Path, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "model.pte").write_bytes((quantised / "model.pte").read_bytes()[:1000])
    item = Teacher(name="t", token_ids=(1, 2), calls=(2,))
    plan = RunPlan(max_seq_len=64, prefill_chunk=32, items=(item,))
    with pytest.raises(RunFailedError, match="ExecuTorch error") as caught:
        simulator.run(package, plan, log=tmp_path / "log.txt")
    assert caught.value.code == "runtime-failed"
