"""verify and bench on the fake harness: what is printed, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.cli import bench as bench_verb
from mobilepack.cli import render
from mobilepack.cli import verify as verify_verb
from mobilepack.cli.waterfall import merged, print_waterfall
from mobilepack.commands.bench import BenchOptions, BenchResult, bench
from mobilepack.commands.verify import Ladder, VerifyResult, verify
from mobilepack.harness.base import Device
from mobilepack.testing import FakeHarness
from tests.packages import toy_package


@pytest.fixture
def verified(tmp_path: Path) -> VerifyResult:
    """Return the result of a package that passes."""
    return verify(toy_package(tmp_path / "toy", quantised=True), harness=FakeHarness())


@pytest.fixture
def timed(tmp_path: Path) -> BenchResult:
    """Return timings of a toy."""
    options = BenchOptions(prompt_tokens=(8, 4096), gen_tokens=(4,), repetitions=5)
    return bench(toy_package(tmp_path / "timed"), options, harness=FakeHarness())


def test_every_row_of_the_ladder_is_printed(
    verified: VerifyResult, capsys: pytest.CaptureFixture[str]
) -> None:
    verify_verb.print_result(verified, rows=True)
    text = capsys.readouterr().out
    rows = verified.parity.rows
    for status in {row.status for row in rows}:
        printed = sum(line.startswith(f"{status}  ") for line in text.splitlines())
        assert printed == sum(row.status == status for row in rows)
    assert "verify passed\n" in text
    assert text.endswith("parity.json\n")


def test_the_waterfall_has_every_level_with_values_and_limits(
    verified: VerifyResult, capsys: pytest.CaptureFixture[str]
) -> None:
    print_waterfall(merged([verified.parity.levels]))
    header, *lines = capsys.readouterr().out.splitlines()[1:]
    for name in ("SQNR dB", "Mean KLD", "99.0% KLD", "Maximum KLD", "Same top p", "greedy"):
        assert name in header
    named = [line for line in lines if line.startswith(("eager", "exported", "program"))]
    assert [line.split("  ")[0] for line in named][:3] == [
        "eager fp32",
        "eager quantised",
        "exported",
    ]
    assert any("≥ 0.99" in line and "≤ 0.0" in line for line in lines)
    missing = [line for line in lines if line.startswith("not run  ")]
    assert len(missing) == 3
    assert "exported: its checkpoint toys/toy is gone" in missing[0]
    assert any("perturbation floor" in line for line in lines)


def test_levels_of_several_devices_become_one_waterfall(tmp_path: Path) -> None:
    ladder = Ladder(toy_package(tmp_path / "toy"), host=FakeHarness())
    kinds = {"usb:1": "device", "usb:2": "device", "lab": "emulator"}
    results = [
        ladder.on(FakeHarness(device=Device(name, name, kind)))  # type: ignore[arg-type]
        for name, kind in kinds.items()
    ]
    levels = merged([result.parity.levels for result in results])
    assert [(level.rung, level.where) for level in levels][-4:] == [
        ("program on host", "fake"),
        ("program on emulated arm64", "lab"),
        ("program on device", "usb:1"),
        ("program on device", "usb:2"),
    ]


def test_limits_stand_behind_the_values_they_judge(verified: VerifyResult) -> None:
    judged = next(row for row in verified.parity.rows if row.status == "passed")
    limited = next(metric for metric in judged.metrics if metric.limit is not None)
    assert verify_verb.metric_text(limited).count("(") == 1
    broken = limited.model_copy(update={"limit": -1.0, "better": "lower", "value": 1.0})
    assert "broken" in verify_verb.metric_text(broken)


def test_timings_are_printed_with_their_conditions(
    timed: BenchResult, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_verb.print_result(timed)
    text = capsys.readouterr().out
    header = text.splitlines()[0].split("  ")
    assert [name.strip() for name in header if name][:6] == [
        "model",
        "size",
        "params",
        "backend",
        "test",
        "t/s",
    ]
    assert "pp8: TTFT median" in text
    assert "tg4: per token median" in text
    assert "representative: false" in text
    assert "not run  pp4096: " in text
    assert "3 warm-ups, 5 repetitions" in text


@pytest.mark.slow
def test_a_check_that_fails_ends_with_three(run: Callable[..., Any], tmp_path: Path) -> None:
    """A real build whose flight recorder is another model's."""
    from mobilepack.commands.build import BuildOptions, build
    from mobilepack.pipeline.plan import Choices
    from tests.models.checkpoints import make_checkpoint

    folders = []
    for seed in (0, 1):
        model = make_checkpoint(tmp_path / f"model{seed}", seed=seed)
        choices = Choices(linear="fp32", max_seq_len=64)
        options = BuildOptions(model=str(model), out=tmp_path / f"out{seed}", choices=choices)
        folders.append(build(options)[0].folder)
    first = run("verify", folders[0], "-d", "host", "--rows")
    assert first.code == 0
    exported = next(line for line in first.out.splitlines() if line.startswith("exported"))
    assert exported.endswith("passed")
    _swap_reference(*folders)
    ran = run("verify", folders[0], "-d", "host", "--exported", "never")
    assert ran.code == 3
    assert "error[parity-failed]" in ran.err
    assert "verify failed: the first rung that broke a tolerance is 'program on host'" in ran.out
    failed = run("verify", folders[0], "-d", "host", "--json")
    assert (failed.code, failed.err) == (3, "")
    assert failed.document["parity"]["passed"] is False
    both = run("verify", *folders, "-d", "host", "--exported", "never", "--json")
    assert both.code == 3
    assert [one["device"] for one in both.document["devices"]] == [
        f"{folder} on host" for folder in folders
    ]


def _swap_reference(one: Path, other: Path) -> None:
    """Give a package the flight recorder of another one, checksums and all."""
    import shutil

    from mobilepack.contract.manifest import Manifest

    shutil.rmtree(one / "reference")
    shutil.copytree(other / "reference", one / "reference")
    mine = Manifest.read(one / "manifest.json")
    theirs = {entry.path: entry for entry in Manifest.read(other / "manifest.json").files}
    files = tuple(
        theirs[entry.path] if entry.path.startswith("reference/") else entry for entry in mine.files
    )
    (one / "manifest.json").write_text(mine.model_copy(update={"files": files}).to_json())


def test_documents_keep_their_own_schema(
    verified: VerifyResult, timed: BenchResult, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, result in (("verify", verified), ("bench", timed)):
        render.document(kind, render.plain(result))
        document = json.loads(capsys.readouterr().out)
        assert (document["schema"], document["kind"]) == (f"mobilepack/{kind}/1", kind)
        inner = "parity" if kind == "verify" else "bench"
        assert document[inner]["schema"] == f"mobilepack/{inner}/1"
        assert Path(document["folder"]).is_dir()
