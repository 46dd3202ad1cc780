"""A campaign measures what is missing, keeps what it has, and says what it could not measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.bench import BenchOptions, bench
from mobilepack.commands.build import Built
from mobilepack.commands.campaign import (
    SURVEY,
    CampaignOptions,
    CampaignResult,
    campaign,
    keys_of,
    read_campaign,
)
from mobilepack.commands.compare import compare
from mobilepack.contract.campaign import CampaignFile
from mobilepack.contract.package import open_package
from mobilepack.errors import RunFailedError, UsageError
from mobilepack.harness.base import Device
from mobilepack.models.zoo.published import published_names
from mobilepack.report.campaign import write_views
from mobilepack.testing import FakeHarness
from tests.packages import toy_package

TOML = """
title = "Toys"
context = 64
repetitions = 3
models.one = { source = "toys/one" }
models.two = { shape = "smollm-135m" }
recipes.plain = { linear = "fp32" }

[[studies]]
kind = "models"
models = ["one", "two"]
prompt_tokens = [8]
generate_tokens = 6

[[studies]]
kind = "quantisation"
models = ["one"]
recipes = ["default", "plain"]
prompt_tokens = [8]
generate_tokens = 6

[[studies]]
kind = "lengths"
models = ["one"]
prompt_tokens = [4, 16, 32]
generate_tokens = 0

[[studies]]
kind = "hardware"
models = ["one"]
devices = ["host", "phone"]
prompt_tokens = [8]
generate_tokens = 12

[[studies]]
kind = "long context"
models = ["one"]
prompt_tokens = [1]
generate_tokens = 4
depths = [0, 20, 40]
"""


@pytest.fixture
def asked(tmp_path: Path) -> CampaignFile:
    (tmp_path / "c.toml").write_text(TOML)
    return read_campaign(tmp_path / "c.toml")


class Workshop:
    """Makes toy packages and fake devices, and counts."""

    def __init__(self, broken: Callable[[str], bool] = lambda device: False) -> None:
        self.built: list[tuple[str, str]] = []
        self.broken = broken

    def build(self, asked: CampaignFile, name: str, recipe: str, work: Path) -> Built:
        self.built.append((name, recipe))
        folder = toy_package(work / recipe)
        return Built(folder, open_package(folder).manifest, up_to_date=False)

    def harness(self, device: str) -> FakeHarness:
        error = None
        if self.broken(device):
            error = RunFailedError("gone", "the phone is gone", why="unplugged", next="plug it in")
        return FakeHarness(device=Device(device, device, "host"), error=error)

    def run(self, asked: CampaignFile, out: Path, **options: Any) -> CampaignResult:
        return campaign(asked, CampaignOptions(out, **options), self.harness, builder=self.build)


def test_what_studies_share_is_measured_once(asked: CampaignFile) -> None:
    keys = keys_of(asked)
    assert len(set(keys)) == len(keys) == 7
    assert [key.model for key in keys] == ["one"] * 6 + ["two"]


def test_each_package_is_built_once_and_removed(asked: CampaignFile, tmp_path: Path) -> None:
    shop = Workshop()
    result = shop.run(asked, tmp_path / "out")
    assert (result.measured, result.failed) == (7, ())
    assert shop.built == [("one", "default"), ("one", "plain"), ("two", "default")]
    kept = [path.name for path in tmp_path.rglob("manifest.json")]
    assert kept == []


def test_a_second_run_measures_only_what_is_missing(asked: CampaignFile, tmp_path: Path) -> None:
    first = Workshop().run(asked, tmp_path / "out")
    again = Workshop()
    assert again.run(asked, tmp_path / "out") == CampaignResult(first.cells, 0)
    assert again.built == []
    cells = sorted((tmp_path / "out" / "cells").iterdir())
    cells[0].unlink()
    cells[1].write_text("{ torn")
    third = Workshop().run(asked, tmp_path / "out")
    assert third.measured == 2
    assert [cell.key for cell in third.cells] == [cell.key for cell in first.cells]


def test_a_phone_that_fails_costs_its_own_cells_only(asked: CampaignFile, tmp_path: Path) -> None:
    shop = Workshop(broken=lambda device: device == "phone")
    result = shop.run(asked, tmp_path / "out")
    (failed,) = result.failed
    assert (failed.key.device, failed.failure) == ("phone", "the phone is gone: unplugged")
    page = write_views(asked, result.cells, tmp_path / "out", "mobilepack campaign c.toml")
    assert "not measured: one on phone: the phone is gone: unplugged" in page.read_text()
    mended = Workshop().run(asked, tmp_path / "out")
    assert (mended.measured, mended.failed) == (1, ())


def test_another_protocol_is_another_measurement(asked: CampaignFile, tmp_path: Path) -> None:
    Workshop().run(asked, tmp_path / "out")
    other = asked.model_copy(update={"cooldown_s": 0.001})
    assert Workshop().run(other, tmp_path / "out").measured == 7


def test_one_model_can_be_chosen(asked: CampaignFile, tmp_path: Path) -> None:
    result = Workshop().run(asked, tmp_path / "out", models=("two",))
    assert [cell.key.model for cell in result.cells] == ["two"]
    with pytest.raises(UsageError, match="no model three"):
        Workshop().run(asked, tmp_path / "out", models=("three",))


def test_the_page_shows_every_view_with_its_picture(asked: CampaignFile, tmp_path: Path) -> None:
    result = Workshop().run(asked, tmp_path / "out")
    text = write_views(asked, result.cells, tmp_path / "out", "cmd").read_text()
    for title in ("First token and decode", "Latency against prompt", "Quantisation", "Devices",
                  "Long context", "Memory split"):  # fmt: skip
        assert title in text
    shown = {
        part.split(")")[0] for part in text.split("](")[1:] if part.split(")")[0].endswith("svg")
    }
    assert shown == {path.name for path in (tmp_path / "out").glob("*.svg")}
    assert "two*" in text  # random weights are marked
    # 8 tokens of prompt at one tick of the fake clock each call, and never a phone's time
    assert text.count("NOT REPRESENTATIVE") == text.count("| NOT REPRESENTATIVE")


def test_the_survey_is_a_campaign_of_published_shapes() -> None:
    survey = read_campaign(SURVEY)
    shapes = {model.shape for model in survey.models.values() if model.shape}
    assert shapes <= set(published_names())
    assert len(shapes) >= 10
    assert {study.kind for study in survey.studies} == {
        "models", "lengths", "quantisation", "hardware", "long context",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (('models = ["one"]', 'models = ["on"]'), "names the model 'on'"),
        (('recipes = ["default", "plain"]', 'recipes = ["plane"]'), "recipe 'plane'"),
        (('{ source = "toys/one" }', "{}"), "either source or shape"),
        (("context = 64", "contxt = 64"), "contxt"),
        (("title", "title ="), "cannot read"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(
    change: tuple[str, str], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(TOML.replace(*change))
    with pytest.raises(UsageError) as caught:
        read_campaign(path)
    assert named in f"{caught.value.what} {caught.value.why}"


def test_two_campaigns_and_two_runs_can_be_compared(asked: CampaignFile, tmp_path: Path) -> None:
    Workshop().run(asked, tmp_path / "a")
    Workshop(broken=lambda device: device == "phone").run(asked, tmp_path / "b")
    found = {change.name: change for change in compare(tmp_path / "a", tmp_path / "b").changes}
    same = found["one/default/bench/host/pp8+tg6/tok_per_s"]
    assert same.before == same.after
    assert found["one/default/bench/phone/measured"].after == 0
    assert found["one/default/bench/phone/pp8+tg12/ttft_ms"].status == "removed"
    run = bench(toy_package(tmp_path / "p"), BenchOptions((8,), (4,)), harness=FakeHarness()).folder
    names = {change.name for change in compare(run, run).changes}
    assert "bench/fake/peak_memory" in names
