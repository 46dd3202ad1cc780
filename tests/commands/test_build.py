"""`build`, the use case: no-op, rebuilding, and faults: one clear error that leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mobilepack.commands.build import BuildOptions, Built, build, plan
from mobilepack.contract.base import content_id
from mobilepack.contract.package import open_package
from mobilepack.errors import BuildError, ExitCode, MissingError, MobilepackError, UsageError
from mobilepack.pipeline.plan import Choices
from mobilepack.pipeline.workspace import open_workspace
from tests.models.checkpoints import edit_json
from tests.pipeline.packages import assert_clean, assert_left_nothing, files

LENGTHS = {"max_seq_len": 32, "prefill_chunk": 8}
Change = Callable[[Path], None]


@pytest.fixture
def checkpoint(llama: Path, tmp_path: Path) -> Path:
    """Return a checkpoint that the test may damage."""
    return Path(shutil.copytree(llama, tmp_path / "checkpoint"))


def options(model: Path, out: Path, **choices: Any) -> BuildOptions:
    force = choices.pop("force", False)
    return BuildOptions(str(model), out=out, choices=Choices(**{**LENGTHS, **choices}), force=force)


def one(model: Path, out: Path, **choices: Any) -> Built:
    (built,) = build(options(model, out, **choices))
    return built


def stamp(package: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in package.rglob("*")} | {".": package.stat().st_ino}


# --- up to date or not ---


@pytest.mark.slow
def test_a_second_build_does_nothing_and_any_change_builds_again(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = one(checkpoint, out)
    assert not first.up_to_date
    before = stamp(first.folder)
    told: list[str] = []
    (second,) = build(options(checkpoint, out), on_stage=lambda stage, share: told.append(stage))
    assert second.up_to_date
    assert second.manifest == first.manifest
    assert not told
    assert stamp(first.folder) == before

    forced = one(checkpoint, out, force=True)
    assert not forced.up_to_date
    assert stamp(first.folder)["."] != before["."]
    assert forced.manifest.plan_id == first.manifest.plan_id
    assert {e.path: e.sha256 for e in forced.manifest.files} == {
        e.path: e.sha256 for e in first.manifest.files
    }

    other = one(checkpoint, out, embedding="8w")
    assert not other.up_to_date
    assert other.manifest.plan_id != first.manifest.plan_id

    (other.folder / "model.pte").write_bytes(b"damaged")
    assert not one(checkpoint, out, embedding="8w").up_to_date
    (other.folder / "manifest.json").write_text("{}")
    assert not one(checkpoint, out, embedding="8w").up_to_date

    edit_json(checkpoint / "config.json", rms_norm_eps=1e-4)
    assert not one(checkpoint, out, embedding="8w").up_to_date
    assert_clean(out)


def test_a_plan_is_printed_without_building(llama: Path, tmp_path: Path) -> None:
    (found,) = plan(options(llama, tmp_path / "out", embedding="8w"))
    assert (found.recipe.embedding, found.max_seq_len, found.prefill_chunk) == ("8w", 32, 8)
    assert plan(options(llama, tmp_path / "elsewhere", embedding="8w")) == (found,)
    assert not (tmp_path / "out").exists()


def test_a_target_named_twice_is_built_once(llama: Path, tmp_path: Path) -> None:
    doubled = BuildOptions(str(llama), ("xnnpack", "xnnpack"), tmp_path)
    assert len(plan(doubled)) == 1


# --- faults found before anything is written ---


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1000)


def cut_header(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def wrong_shape(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = "model.layers.1.mlp.up_proj.weight"
        tensors[name] = tensors[name][:-1].contiguous()

    change_tensors(folder, change)


def missing_tensor(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.pop("model.norm.weight"))


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"')


def foreign_tokenizer(folder: Path) -> None:
    """Give the tokenizer ids that the model does not have."""
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    vocab = data["model"]["vocab"]
    data["model"]["vocab"] = {k: v if v < 3 else v + 1000 for k, v in vocab.items()}
    path.write_text(json.dumps(data))


def silent_tokenizer(folder: Path) -> None:
    """Take away every token: text makes no ids at all."""
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["vocab"], data["model"]["merges"] = {}, []
    (folder / "tokenizer.json").write_text(json.dumps(data))


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def unknown_family(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="gpt_oss")


FAULTS: list[tuple[Change, type[MobilepackError], ExitCode, str]] = [
    (truncate, UsageError, ExitCode.USAGE, "model.safetensors"),
    (cut_header, UsageError, ExitCode.USAGE, "model.safetensors"),
    (wrong_shape, UsageError, ExitCode.USAGE, "up_proj"),
    (missing_tensor, UsageError, ExitCode.USAGE, "model.norm.weight is missing"),
    (pickle_only, UsageError, ExitCode.USAGE, "pickle"),
    (no_tokenizer, MissingError, ExitCode.MISSING, "tokenizer.json"),
    (broken_tokenizer, UsageError, ExitCode.USAGE, "tokenizer.json"),
    (foreign_tokenizer, UsageError, ExitCode.USAGE, "vocab_size"),
    (silent_tokenizer, UsageError, ExitCode.USAGE, "no ids"),
    (no_config, UsageError, ExitCode.USAGE, "config.json"),
    (unknown_family, UsageError, ExitCode.USAGE, "gpt_oss"),
]


def failure_of(call: Callable[[], object]) -> MobilepackError:
    """Return the one error of a call, and check that it says what, why and what next."""
    with pytest.raises(MobilepackError) as caught:
        call()
    err = caught.value
    assert err.code
    assert err.what
    assert err.why
    assert err.next
    assert not err.what.endswith(".")
    return err


@pytest.mark.parametrize(("damage", "kind", "code", "named"), FAULTS, ids=lambda x: str(x)[:24])
def test_a_damaged_checkpoint_is_one_error_and_leaves_nothing(
    damage: Change,
    kind: type[MobilepackError],
    code: ExitCode,
    named: str,
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    damage(checkpoint)
    err = failure_of(lambda: one(checkpoint, tmp_path / "out"))
    assert isinstance(err, kind)
    assert err.exit_code == code
    assert named in f"{err.what} {err.why}"
    told = f"{err.what} {err.why} {err.next}"
    assert str(checkpoint) in told or "config.json" in told
    assert_left_nothing(tmp_path / "out")


def test_a_folder_that_is_not_there_and_a_target_that_is_not_known(
    llama: Path, tmp_path: Path
) -> None:
    assert failure_of(lambda: one(tmp_path / "none", tmp_path / "out")).exit_code == ExitCode.USAGE
    wrong = BuildOptions(str(llama), ("xnpack",), tmp_path / "out")
    err = failure_of(lambda: build(wrong))
    assert "xnnpack" in err.why + err.next
    assert_left_nothing(tmp_path / "out")


def test_what_no_build_wrote_is_not_replaced(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "xnnpack" / "src").mkdir(parents=True)
    err = failure_of(lambda: one(llama, tmp_path))
    assert err.code == "not-a-package"
    assert (tmp_path / "xnnpack" / "src").is_dir()


# --- faults found while building ---


@pytest.fixture
def older(checkpoint: Path, tmp_path: Path) -> dict[str, bytes]:
    """Put an older package in place and return its files: a failed build must not touch it."""
    one(checkpoint, tmp_path / "out", embedding="8w")
    return files(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name",
    ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"],
)
def test_weights_that_are_no_numbers_are_named(
    value: float, name: str, checkpoint: Path, tmp_path: Path
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(-1)[17] = value

    change_tensors(checkpoint, change)
    err = failure_of(lambda: one(checkpoint, tmp_path / "out"))
    assert (err.code, err.exit_code) == ("weights-not-finite", ExitCode.BUILD_FAILED)
    assert name in err.what
    assert_left_nothing(tmp_path / "out")


@pytest.mark.slow
def test_a_failed_build_leaves_the_older_package(
    older: dict[str, bytes], checkpoint: Path, tmp_path: Path
) -> None:
    change_tensors(checkpoint, lambda tensors: tensors["lm_head.weight"].fill_(float("nan")))
    failure_of(lambda: one(checkpoint, tmp_path / "out"))
    assert files(tmp_path / "out") == older
    open_package(tmp_path / "out")


def never_fits(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))


@pytest.mark.slow
def test_a_disk_that_is_too_small_is_noticed_before_the_weights(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_fits(monkeypatch, 10_000)
    told: list[str] = []
    call = options(checkpoint, tmp_path / "out")
    err = failure_of(
        lambda: build(call, on_stage=lambda stage, share: told.append(f"{stage} {share}"))
    )
    assert (err.code, err.exit_code) == ("disk-full", ExitCode.BUILD_FAILED)
    assert "model.pte needs" in err.why
    assert told[-1] == "weights 0.0"
    assert_left_nothing(tmp_path / "out")


FULL = Path("/dev/full")


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_disk_that_fills_up_on_the_way_is_one_error(
    name: str, checkpoint: Path, tmp_path: Path
) -> None:
    """A link to /dev/full in the folder that a killed build left: writing it fails with ENOSPC."""
    out = tmp_path / "out"
    (planned,) = plan(options(checkpoint, out))
    out.mkdir()
    workspace = open_workspace(out, "xnnpack", content_id(planned))
    (workspace.folder / name).symlink_to(FULL)
    err = failure_of(lambda: one(checkpoint, out))
    assert isinstance(err, BuildError)
    assert err.code == "disk-full"
    assert "No space left" in err.why
    assert_left_nothing(out)
