"""ExecuTorch's own Android library, through its Java API, driven by the app's own harness.

The official AAR is not to be had where these tests were written (Maven's client is told that there
is no org.pytorch:executorch-android, neither any list of its versions nor 0.6.0, 0.7.0 or 1.0.0 to
1.5.1), so this is the arm64 library that npm's react-native-executorch 0.9.3 ships, a build of the
same sources. It runs in a Debian JVM on a virtual phone: what glibc lacks comes from bionic.c. C++
exceptions may abort there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mobilepack.contract.reference import Reference
from mobilepack.contract.run_plan import Generate, RunPlan, Teacher
from mobilepack.contract.run_result import RunResult
from mobilepack.harness.host import HostHarness
from mobilepack.metrics.tolerance import fp32_limits, measured_floor
from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.zoo import embedded_path
from mobilepack.process import Finished
from tests.android_library.conftest import PLACE, RENAMED, Lab
from tests.harness.static_packages import (
    WITHOUT_WARNINGS,
    Packages,
    check_same_rows,
    static_packages,
    static_plan,
)

__all__ = ["static_packages"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned"), *WITHOUT_WARNINGS]
PROMPT = "Once upon a time"
PLAN = RunPlan(
    max_seq_len=64,
    prefill_chunk=32,
    sample_ids=tuple(range(0, 2048, 32)),
    top_k=8,
    threads=1,
    items=(
        Teacher(name="t", token_ids=tuple(range(1, 13)), calls=(8, 1, 1, 1, 1)),
        Generate(name="g", token_ids=(3, 1, 4, 1, 5), max_new_tokens=6),
    ),
)


def test_every_import_is_one_of_glibc_s_or_ours(lab: Lab) -> None:
    """A version of the library whose imports cannot be carried is named by its symbols."""
    assert set(RENAMED.values()) <= lab.imports
    assert not set(RENAMED) & lab.imports


def _limit(package: Path) -> float:
    """Return what rms / std of the logits may be: fp32 1e-5, 8da4w twice the measured floor."""
    floor = measured_floor(Reference.read(package / "reference"))
    return fp32_limits()["rms_over_std"].value if floor is None else 2 * floor.rms_over_std


@pytest.fixture(params=["quantised", "fp32"])
def package(request: pytest.FixtureRequest) -> Path:
    """Return the embedded model; fp32's attention is an operator that asks for the thread pool."""
    found: Path = request.getfixturevalue(request.param)
    return found


def test_module_computes_what_this_machine_computes(
    lab: Lab, package: Path, tmp_path: Path
) -> None:
    """The same tokens, and nearly the same logits: its XNNPACK is another release's."""
    plan = tmp_path / "plan.json"
    plan.write_text(PLAN.to_json())
    lab.adb.push(plan, f"{PLACE}/plan.json", timeout_s=60)
    lab.adb.push(package / "model.pte", f"{PLACE}/model.pte", timeout_s=60)
    done = lab.java("plan", *(f"{PLACE}/{name}" for name in ("model.pte", "plan.json", "result")))
    assert done.returncode == 0, done.stderr
    lab.adb.pull(f"{PLACE}/result", tmp_path / "result", timeout_s=60)
    found = RunResult.read(tmp_path / "result")
    assert found.plan_sha256 == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert found.environment.cpu == "aarch64"
    host = HostHarness().run(package, PLAN, log=tmp_path / "log")
    texts = [[one.token_ids for one in each.generated] for each in (found, host)]
    assert texts[0] == texts[1]
    a, b = (np.array([row.sampled for row in one.rows]) for one in (found, host))
    assert np.sqrt(((a - b) ** 2).mean()) <= _limit(package) * b.std()


def _carried_out(lab: Lab, package: Path, plan: RunPlan, tmp_path: Path) -> Finished:
    """Carry a plan out with the manifest beside the program; the result is `result`."""
    (tmp_path / "plan.json").write_text(plan.to_json())
    there = [f"{PLACE}/{name}" for name in ("model.pte", "plan.json", "result", "manifest.json")]
    lab.adb.push(tmp_path / "plan.json", there[1], timeout_s=60)
    for name in ("model.pte", "manifest.json"):
        lab.adb.push(package / name, f"{PLACE}/{name}", timeout_s=60)
    done = lab.java("plan", *there)
    if done.returncode == 0:
        lab.adb.pull(there[2], tmp_path / "result", timeout_s=60)
    return done


@pytest.mark.parametrize("kind", ["embedded", "windows", "bytes", "portable"])
def test_the_static_form_computes_what_python_computes_here(
    kind: str, lab: Lab, static_packages: Packages, tmp_path: Path
) -> None:
    """Masks, positions, the cache in buffers of Java's, of floats and of bytes: 42 rows."""
    package = static_packages(kind)
    plan = static_plan(package)
    done = _carried_out(lab, package, plan, tmp_path)
    assert done.returncode == 0, done.stderr
    host = HostHarness().run(package, plan, log=tmp_path / "log")
    check_same_rows(RunResult.read(tmp_path / "result"), host)


def test_llm_module_says_the_same_as_this_machine(lab: Lab, package: Path, tmp_path: Path) -> None:
    """Its runner puts no token in front of a prompt; the app's prompt.txt does."""
    tokenizer = Tokenizer.open(package)
    ids = tuple(tokenizer.encode(PROMPT))
    prompt = tokenizer.decode(ids)
    assert prompt == f"<|bos|>{PROMPT}"
    new = 8
    item = Generate(name="g", token_ids=ids, max_new_tokens=3 * new, stop_ids=())
    plan = PLAN.model_copy(update={"items": (item,)})
    expected = HostHarness().run(package, plan, log=tmp_path / "log").generated[0].token_ids
    for name in ("model.pte", "tokenizer.json"):
        lab.adb.push(package / name, f"{PLACE}/{name}", timeout_s=60)
    said_there = f"{PLACE}/text-{package.parent.name}"  # it is appended to
    done = lab.java("chat", PLACE, prompt, str(len(ids) + new), said_there)
    assert done.returncode == 0, done.stderr
    lab.adb.pull(said_there, tmp_path / "text", timeout_s=60)
    said = (tmp_path / "text").read_text()
    whole, least = (
        tokenizer.decode([*ids, *part], skip_special=True).removeprefix(PROMPT)
        for part in (expected, expected[:new])
    )
    # How many tokens its length means differs from release to release, the tokens do not.
    assert whole.startswith(said)
    assert said.startswith(least)


def test_the_app_s_own_chat_says_the_same_as_this_machine(
    lab: Lab, static_packages: Packages, tmp_path: Path
) -> None:
    """A program of the static form: ids, choices and text all come from the app's Kotlin."""
    package, tokenizer, new = static_packages("embedded"), Tokenizer.open(embedded_path()), 12
    prompt = f"<|bos|>{PROMPT}"
    ids = tuple(tokenizer.encode(PROMPT))
    item = Generate(name="g", token_ids=ids, max_new_tokens=new, stop_ids=())
    plan = static_plan(package).model_copy(update={"items": (item,)})
    expected = HostHarness().run(package, plan, log=tmp_path / "log").generated[0].token_ids
    for path in (package / "model.pte", package / "manifest.json"):
        lab.adb.push(path, f"{PLACE}/{path.name}", timeout_s=60)
    lab.adb.push(embedded_path() / "tokenizer.json", f"{PLACE}/tokenizer.json", timeout_s=60)
    positions = len(ids) + new - 1  # the last token is chosen and not fed
    done = lab.java("talk", PLACE, prompt, str(positions), f"{PLACE}/talk")
    assert done.returncode == 0, done.stderr
    lab.adb.pull(f"{PLACE}/talk", tmp_path / "text", timeout_s=60)
    whole = tokenizer.decode([*ids, *expected], skip_special=True)
    assert PROMPT + (tmp_path / "text").read_text() == whole
