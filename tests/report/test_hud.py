"""Records of PyTorch's benchmark database: one per metric, in its shape."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mobilepack.contract.manifest import Manifest
from mobilepack.contract.parity import Measured
from mobilepack.report.hud import hud
from mobilepack.report.runs import Runs
from tests.packages import toy_package
from tests.report.records import a_bench, a_parity, an_evaluation


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.read(toy_package(tmp_path / "p", quantised=True) / "manifest.json")


def _records(manifest: Manifest, runs: Runs) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(hud(manifest, runs))
    return found


def _check(record: dict[str, Any]) -> None:
    """Hold a record against the database's columns: text maps to text, values are numbers."""
    assert record.keys() == {"benchmark", "model", "metric", "runners"}
    assert record["benchmark"].keys() == {"name", "mode", "dtype", "extra_info"}
    assert record["model"].keys() == {"name", "type", "backend", "extra_info"}
    metric = record["metric"]
    assert metric.keys() == {"name", "benchmark_values", "target_value", "extra_info"}
    assert metric["benchmark_values"]
    for value in (*metric["benchmark_values"], metric["target_value"]):
        assert isinstance(value, int | float)
        assert math.isfinite(value)
    (runner,) = record["runners"]
    assert runner.keys() >= {"name", "type"}
    for holder in (record["benchmark"], record["model"], metric, runner):
        for name, value in holder.get("extra_info", {}).items():
            assert isinstance(name, str)
            assert isinstance(value, str)


def test_every_metric_is_a_record(manifest: Manifest) -> None:
    runs = Runs((a_parity("id"),), (a_bench("id"),), (), (an_evaluation("id"),))
    found = _records(manifest, runs)
    for record in found:
        _check(record)
    names = [record["metric"]["name"] for record in found]
    assert names == [
        *("token_per_sec", "ttft_ms", "instructions_per_token"),
        *("token_per_sec", "decode_token_ms", "instructions_per_token"),
        *("load_ms", "loaded_bytes", "peak_over_base_bytes", "program_bytes"),
        *("rms_over_std", "rms_over_std", "rms_over_std", "kl_max", "exact_match"),
    ]
    by_name = {record["metric"]["name"]: record for record in found}
    assert by_name["kl_max"]["metric"]["target_value"] == 0.01
    assert by_name["kl_max"]["metric"]["benchmark_values"] == [0.5]
    assert by_name["load_ms"]["metric"]["benchmark_values"] == [131.5, 106.25]
    assert by_name["load_ms"]["runners"][0]["total_mem_in_gb"] == 8.0
    assert by_name["decode_token_ms"]["metric"]["extra_info"]["trust"] == "NOISY"
    assert by_name["decode_token_ms"]["metric"]["benchmark_values"][-1] == 5.0
    assert by_name["exact_match"]["metric"]["extra_info"]["stderr"] == "0.025"
    assert by_name["exact_match"]["benchmark"]["dtype"] == "8da4w group 32"


def test_numbers_that_are_not_finite_are_left_out(manifest: Manifest) -> None:
    parity = a_parity("id")
    bad = Measured(name="kl_max", value=math.nan, better="lower", limit=math.inf)
    rows = (parity.rows[0].model_copy(update={"metrics": (bad,)}),)
    assert _records(manifest, Runs((parity.model_copy(update={"rows": rows}),), (), ())) == []


@pytest.mark.parametrize(
    ("source", "name"), [("org/model", "org/model"), ("/home/me/models/mine", "mine")]
)
def test_a_model_has_the_name_that_others_know(manifest: Manifest, source: str, name: str) -> None:
    model = manifest.plan.model.model_copy(update={"source": source})
    plan = manifest.plan.model_copy(update={"model": model})
    renamed = manifest.model_copy(update={"plan": plan})
    found = _records(renamed, Runs((), (a_bench("id"),), ()))
    assert {record["model"]["name"] for record in found} == {name}
