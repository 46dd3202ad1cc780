"""ExecuTorch's own Android library, through its Java API, driven by the app's own harness.

The official AAR is not to be had where these tests were written (Maven Central answers that it has
no org.pytorch:executorch-android, any version from 1.0.0 to 1.5.1), so this is the arm64 library
that npm's react-native-executorch 0.9.3 ships, a build of the same sources. It runs in a Debian JVM
on a virtual phone: what glibc lacks comes from bionic.c. C++ exceptions may abort there.
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
from mobilepack.metrics.tolerance import measured_floor
from mobilepack.models.tokenizer import Tokenizer
from tests.android_library.conftest import PLACE, RENAMED, Lab

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned")]
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


def test_module_computes_what_this_machine_computes(
    lab: Lab, quantised: Path, tmp_path: Path
) -> None:
    """8da4w within twice the measured floor, the same tokens: XNNPACK is another release's."""
    floor = measured_floor(Reference.read(quantised / "reference"))
    assert floor is not None
    plan = tmp_path / "plan.json"
    plan.write_text(PLAN.to_json())
    lab.adb.push(plan, f"{PLACE}/plan.json", timeout_s=60)
    lab.adb.push(quantised / "model.pte", f"{PLACE}/model.pte", timeout_s=60)
    done = lab.java("plan", *(f"{PLACE}/{name}" for name in ("model.pte", "plan.json", "result")))
    assert done.returncode == 0, done.stderr
    lab.adb.pull(f"{PLACE}/result", tmp_path / "result", timeout_s=60)
    found = RunResult.read(tmp_path / "result")
    assert found.plan_sha256 == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert found.environment.cpu == "aarch64"
    host = HostHarness().run(quantised, PLAN, log=tmp_path / "log")
    texts = [[one.token_ids for one in each.generated] for each in (found, host)]
    assert texts[0] == texts[1]
    a, b = (np.array([row.sampled for row in one.rows]) for one in (found, host))
    assert np.sqrt(((a - b) ** 2).mean()) <= 2 * floor.rms_over_std * b.std()


def test_llm_module_says_the_same_as_this_machine(
    lab: Lab, quantised: Path, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.open(quantised)
    ids = tuple(tokenizer.encode(PROMPT))
    new = 8
    item = Generate(name="g", token_ids=ids, max_new_tokens=3 * new, stop_ids=())
    plan = PLAN.model_copy(update={"items": (item,)})
    expected = HostHarness().run(quantised, plan, log=tmp_path / "log").generated[0].token_ids
    for name in ("model.pte", "tokenizer.json"):
        lab.adb.push(quantised / name, f"{PLACE}/{name}", timeout_s=60)
    done = lab.java("chat", PLACE, PROMPT, str(len(ids) + new), f"{PLACE}/text")
    assert done.returncode == 0, done.stderr
    lab.adb.pull(f"{PLACE}/text", tmp_path / "text", timeout_s=60)
    said = (tmp_path / "text").read_text()
    whole, least = (
        tokenizer.decode([*ids, *part], skip_special=True).removeprefix(PROMPT)
        for part in (expected, expected[:new])
    )
    # How many tokens its length means differs from release to release, the tokens do not.
    assert whole.startswith(said)
    assert said.startswith(least)
