"""The app's harness, compiled and run on a JVM: same plan, same result as Python and C++."""

from __future__ import annotations

import re
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mobilepack.contract.run_plan import RunPlan, Teacher
from tests.android_demo.conftest import Kotlin
from tests.harness.core_contract import CoreContract, Run
from tests.harness.static_contract import Said, StaticContract

pytestmark = pytest.mark.slow


@pytest.fixture
def obey(kotlin: Kotlin, core: Path, toy: Path, tmp_path: Path) -> Run:
    """Return a function that carries out a plan's bytes; its result is `result.json`."""

    def call(plan: bytes, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "plan.json").write_bytes(plan)
        files = (tmp_path / "plan.json", tmp_path / "result.json")
        return kotlin.run("mobilepack.harness.ToyKt", [toy, core], *files, *options)

    return call


class TestKotlin(CoreContract):
    """On a JVM."""

    conditions = frozenset({"load_average_before", "load_average_after", "peak_memory"})
    of_bad_literals = "a: unknown field"


class TestStaticForm(StaticContract):
    """The session that drives programs whose cache the app keeps."""

    unknown = {"integers": "uint16", "signed": "int16"}  # noqa: RUF012 - read only

    @pytest.fixture
    def said(self, kotlin: Kotlin, core: Path, toy: Path, tmp_path: Path) -> Said:
        """Return what feeds calls to a form that a manifest's text describes."""

        def ask(
            manifest: str, calls: Sequence[tuple[int, Sequence[int]]]
        ) -> subprocess.CompletedProcess[str]:
            path = tmp_path / "manifest.json"
            path.write_text(manifest)
            lines = "".join(f"{at} {' '.join(map(str, ids))}\n" for at, ids in calls)
            return kotlin.run("mobilepack.harness.StaticCalls", [toy, core], path, fed=lines)

        return ask


class TestStaticPlans:
    """Plans on the toy in the static form, whose methods know of a call what its masks say."""

    def test_the_golden_plan_brings_back_the_golden_result(self, obey: Run, tmp_path: Path) -> None:
        CoreContract.test_it_brings_back_the_golden_result_to_the_last_digit(
            TestKotlin(), lambda plan: obey(plan, "static"), tmp_path
        )

    def test_200_positions_in_calls_of_40_and_1(self, obey: Run, tmp_path: Path) -> None:
        CoreContract.test_every_logit_of_a_long_item_is_the_one_of_python(
            TestKotlin(), lambda plan: obey(plan, "static"), tmp_path
        )

    def test_a_call_that_the_form_does_not_hold_is_a_report(
        self, obey: Run, tmp_path: Path
    ) -> None:
        item = Teacher(name="t", token_ids=(1,) * 41, calls=(41,))
        done = obey(
            RunPlan(max_seq_len=64, prefill_chunk=41, items=(item,)).to_json().encode(), "static"
        )
        assert done.returncode == 1
        assert done.stdout.endswith("41 tokens from position 0 on do not fit\n")


def test_halves_are_numpy_s(kotlin: Kotlin, core: Path, toy: Path) -> None:
    """Every half, what lies in the middle of two, numbers at random: ties go to the even one."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = np.sort(halves[np.isfinite(halves)])
    middles = (finite[1:] + finite[:-1]) / 2
    some = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    edges = np.array([65519.996, 65520, 1e30, 1e-30, 2**-25, np.nan], np.float32)
    fed = np.concatenate([halves, middles, np.nextafter(middles, np.float32(0)), some, edges])
    lines = "".join(f"{bits:08x}\n" for bits in fed.view(np.uint32))
    done = kotlin.run("mobilepack.harness.Halves", [toy, core], fed=lines)
    assert done.returncode == 0, done.stderr
    found = [[int(word, 16) for word in line.split()] for line in done.stdout.splitlines()]
    with np.errstate(over="ignore"):
        expected = fed.astype(np.float16)
    ours = np.array([one[0] for one in found], np.uint16).view(np.float16)
    np.testing.assert_array_equal(ours, expected)
    back = np.array([one[1] for one in found], np.uint32).view(np.float32)
    np.testing.assert_array_equal(back, expected.astype(np.float32))


def test_buffers_are_called_as_android_9_has_them(core: Path) -> None:
    """JDK 9's `ByteBuffer.limit` returns a ByteBuffer, Android 9's a Buffer; D8 mends no call."""
    names = [name for name in zipfile.ZipFile(core).namelist() if name.endswith(".class")]
    classes = [name.removesuffix(".class").replace("/", ".") for name in names]
    done = subprocess.run(
        ["javap", "-p", "-c", "-cp", str(core), *classes],  # noqa: S607 - as the compiler is
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    calls = re.findall(r"java/nio/(\w+Buffer)\.(\w+):(\S+)", done.stdout)
    assert ("ByteBuffer", "put", "(Ljava/nio/ByteBuffer;)Ljava/nio/ByteBuffer;") in calls
    moving = {"limit", "position", "rewind", "flip", "clear", "mark", "reset"}
    assert not [call for call in calls if call[1] in moving]
