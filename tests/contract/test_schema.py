"""The contracts are golden: C++, Kotlin and Swift obey what these files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobilepack.contract.run_plan import Generate, RunPlan, Teacher, Time
from mobilepack.contract.run_result import RunResult
from mobilepack.contract.schema import contracts, json_schema, write_schemas
from mobilepack.testing import FakeHarness

DATA = Path(__file__).resolve().parent.parent / "data" / "contract"


def _golden(request: pytest.FixtureRequest, name: str, text: str) -> None:
    path = DATA / name
    if request.config.getoption("--update-golden", default=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.is_file(), f"{path} is missing; run pytest --update-golden"
    assert text == path.read_text()


@pytest.mark.parametrize("name", sorted(contracts()))
def test_schema(request: pytest.FixtureRequest, name: str) -> None:
    _golden(request, f"{name}.schema.json", json_schema(name))


def test_every_written_key_is_required_and_no_other_allowed() -> None:
    for name in ("run_plan", "run_result"):
        schema = json.loads(json_schema(name))
        for part in (schema, *schema["$defs"].values()):
            if part["type"] == "object" and "properties" in part:
                assert part["additionalProperties"] is False
                assert sorted(part["required"]) == sorted(part["properties"])


def test_write_schemas_writes_all(tmp_path: Path) -> None:
    assert len(write_schemas(tmp_path)) == len(contracts())


def example_plan() -> RunPlan:
    """Return a plan with every kind of item, for a toy model (mobilepack.testing.ToyModel)."""
    prompt = (3, 1, 4, 1, 5, 9, 2, 6, 5)
    return RunPlan(
        max_seq_len=32,
        prefill_chunk=4,
        sample_ids=(0, 20, 40, 60),
        top_k=3,
        threads=1,
        items=(
            Teacher(name="prefill and decode", token_ids=prompt, calls=(4, 3, 1)),
            Teacher(name="second prompt", token_ids=(8, 8, 60), calls=(3,)),
            Generate(name="free", token_ids=prompt[:5], max_new_tokens=4),
            Generate(name="stops", token_ids=prompt[:5], max_new_tokens=4, stop_ids=(18, 56)),
            Time(name="pp6+tg2 @ d3", token_ids=(7, 9), n_prompt=6, n_gen=2, n_depth=3)
            .model_copy(update={"repetitions": 2}),
        ),
    )  # fmt: skip


def test_golden_plan_and_the_result_of_obeying_it(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Every implementation gives this result for this plan, but for times and environment."""
    plan = example_plan()
    _golden(request, "run_plan.json", plan.to_json())
    result = FakeHarness().run(tmp_path, plan, log=tmp_path / "log.txt")
    text = json.dumps(json.loads(result.to_json()), indent=1) + "\n"
    _golden(request, "run_result.json", text)
    assert RunPlan.read(DATA / "run_plan.json") == plan
    assert RunResult.read(DATA / "run_result.json") == result
