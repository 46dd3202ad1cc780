"""What the harness of either app must do with a plan's bytes: the same as Python."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import UsageError
from mobilepack.testing import FakeHarness

CONTRACT = Path(__file__).parents[1] / "data" / "contract"
PLAN = (CONTRACT / "run_plan.json").read_bytes()
Run = Callable[..., subprocess.CompletedProcess[str]]
"""Carries out a plan's bytes on the toy model; its result is `result.json` in `tmp_path`."""


def changed(**items: Any) -> dict[str, Any]:
    """Return the golden plan with its first item's fields replaced."""
    plan = json.loads(PLAN)
    plan["items"][0].update(items)
    return {"items": plan["items"]}


TIME: dict[str, Any] = {"kind": "time", "name": "t", "token_ids": [1], "n_prompt": 0, "n_gen": 0}


class CoreContract:
    """Tests of a fixture `obey`, a `Run`.

    Attributes:
        conditions: What this harness can tell of the device.
        of_bad_literals: What it says of a field that JSON cannot hold and a plan does not have.
    """

    conditions: frozenset[str]
    of_bad_literals: str

    def test_it_brings_back_the_golden_result_to_the_last_digit(
        self, obey: Run, tmp_path: Path
    ) -> None:
        done = obey(PLAN)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(RunResult.read(tmp_path / "result.json").to_json())
        expected = json.loads((CONTRACT / "run_result.json").read_text())
        conditions = found["environment"].pop("conditions")
        assert expected["environment"].pop("conditions") == {}
        assert found == expected
        assert found["plan_sha256"] == hashlib.sha256(PLAN).hexdigest()
        assert set(conditions) == self.conditions
        assert done.stdout.splitlines()[0] == "0/5 prefill and decode"
        assert done.stdout.splitlines()[-1] == "5/5 "

    def test_every_logit_of_a_long_item_is_the_one_of_python(
        self, obey: Run, tmp_path: Path
    ) -> None:
        """Ties in the top and float32 at 9 digits, over 200 rows and the whole vocabulary."""
        ids = tuple(n * n % 61 for n in range(240))
        long = Teacher(name='long "é😀\\', token_ids=ids, calls=(40, *(1,) * 199))
        plan = RunPlan(
            max_seq_len=256, prefill_chunk=40, sample_ids=tuple(range(61)), top_k=99, items=(long,)
        )
        assert obey(plan.to_json().encode()).returncode == 0
        found = RunResult.read(tmp_path / "result.json")
        expected = FakeHarness().run(tmp_path, plan, log=tmp_path / "log.txt")
        assert len(found.rows) == 200
        # The sum of 61 exponentials may round to a neighbouring float32 (2^-24 of 17); the rest is
        # exact.
        for ours, theirs in zip(found.rows, expected.rows, strict=True):
            assert ours.logsumexp == pytest.approx(theirs.logsumexp, rel=2**-23)
            assert ours.model_copy(update={"logsumexp": theirs.logsumexp}) == theirs

    def test_logits_that_are_no_numbers_are_counted(self, obey: Run, tmp_path: Path) -> None:
        assert obey(PLAN, "nan").returncode == 0
        for row in RunResult.read(tmp_path / "result.json").rows:
            assert (row.non_finite, row.sampled, row.top_ids, row.next_logit) == (2, (), (), None)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"items": []}, "items: is empty"),
            ({"items": 3}, "items: must be a list of objects"),
            ({"items": [3]}, "items: must be a list of objects"),
            ({"max_seq_len": 7}, "prefill and decode needs 8 positions of 7"),
            ({"max_seq_len": 32.0}, "max_seq_len: must be an integer"),
            ({"max_seq_len": "32"}, "max_seq_len: must be an integer"),
            ({"prefill_chunk": 2}, "has a call longer than 2"),
            ({"prefill_chunk": None}, "prefill_chunk: must be an integer"),
            ({"surprise": 1}, "surprise: unknown field"),
            ({"schema": "mobilepack/run-plan/9"}, "schema: is not"),
            ({"method": 3}, "method: must be text"),
            ({"top_k": 0}, "top_k: must be an integer from 1"),
            ({"top_k": True}, "top_k: must be an integer from 1"),
            ({"threads": -1}, "threads: must be an integer from 0"),
            ({"weight_cache": "abc"}, "weight_cache: is neither empty nor a sha256"),
            ({"weight_cache": "A" * 64}, "weight_cache: is neither empty nor a sha256"),
            ({"sample_ids": ["a"]}, "sample_ids: holds what is no integer"),
            ({"sample_ids": [2**31]}, "sample_ids: holds what is no integer"),
            (changed(kind="train"), "items.0.kind: unknown kind 'train'"),
            (changed(name=""), "items.0.name: is empty"),
            (changed(name="free"), "two items are named 'free'"),
            (changed(token_ids=[]), "items.0.token_ids: is empty"),
            (changed(token_ids=[-1]), "items.0.token_ids: holds"),
            (changed(token_ids=[1, 2]), "prefill and decode feeds 8 of 2 ids"),
            (changed(calls=[0]), "items.0.calls: holds"),
            (changed(stop_ids=[1]), "items.0.stop_ids: unknown field"),
            ({"items": [TIME]}, "t times nothing: n_prompt and n_gen are both 0"),
            ({"items": [TIME | {"n_gen": 1, "repetitions": 0}]}, "repetitions: must be an integer"),
            ({"items": [TIME | {"n_gen": 1, "cooldown_s": -0.5}]}, "cooldown_s: must be a number"),
        ],
    )
    def test_what_python_refuses_is_refused(
        self, obey: Run, tmp_path: Path, change: dict[str, Any], said: str
    ) -> None:
        plan = json.dumps(json.loads(PLAN) | change).encode()
        with pytest.raises(UsageError):
            RunPlan.parse(plan, "plan")
        done = obey(plan)
        assert (done.returncode, done.stderr) == (1, "")
        assert said in done.stdout
        assert not (tmp_path / "result.json").exists()

    def test_an_id_that_the_program_does_not_have_is_named(self, obey: Run, tmp_path: Path) -> None:
        done = obey(json.dumps(json.loads(PLAN) | {"sample_ids": [9999]}).encode())
        assert (done.returncode, done.stderr) == (1, "")
        assert "the plan names token id 9999, the program has 61" in done.stdout
        assert not (tmp_path / "result.json").exists()

    @pytest.mark.parametrize(
        "plan", [b"", b"{", b"[]", b"3", PLAN + b"x", b"\xff\xfe", b"[" * 9999, b'{"a" 1}']
    )
    def test_a_broken_plan_is_a_report_and_no_crash(self, obey: Run, plan: bytes) -> None:
        done = obey(plan)
        assert (done.returncode, done.stderr) == (1, "")
        assert "the plan is no" in done.stdout

    @pytest.mark.parametrize("value", [b"01", b"1.", b"tru", b'"\x01"', b'"\\ud800"', b'1, "a": 1'])
    def test_a_bad_literal_is_refused(self, obey: Run, value: bytes) -> None:
        done = obey(b'{"a": ' + value + b"}")
        assert (done.returncode, done.stderr) == (1, "")
        assert self.of_bad_literals in done.stdout

    def test_all_problems_are_reported_at_once(self, obey: Run) -> None:
        plan = json.loads(PLAN) | {"top_k": 0, "surprise": 1, "method": 3}
        del plan["prefill_chunk"], plan["items"][2]["max_new_tokens"]
        said = obey(json.dumps(plan).encode()).stdout.splitlines()
        assert sorted(line.split(":")[0] for line in said) == [
            "items.2.max_new_tokens", "method", "prefill_chunk", "surprise", "top_k",
        ]  # fmt: skip
