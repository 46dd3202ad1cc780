"""Plans for QNN, and (slow) a whole build that verify proves on the HTP emulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.attached import attached_soc
from mobilepack.commands.build import BuildOptions, build, plan
from mobilepack.commands.evaluate import EvalOptions, evaluate
from mobilepack.commands.lm_tasks import LmEvalOptions
from mobilepack.commands.plan import plan as predict
from mobilepack.commands.verify import VerifyOptions, verify
from mobilepack.errors import UsageError
from mobilepack.pipeline.compression_options import CompressionChoices
from mobilepack.pipeline.plan import Choices

QNN = ("qnn",)


def planned(**choices: Any) -> Any:
    (made,) = plan(BuildOptions(targets=QNN, choices=Choices(**choices)))
    return made


def test_the_default_names_its_chip() -> None:
    made = planned()
    assert (made.target, made.backend, made.soc_model) == ("qnn", "qnn", "SM8650")
    assert made.recipe.model_dump() == {
        "linear": "16a4w",
        "group_size": 0,
        "embedding": "16w",
        "kv_cache": "int8",
    }
    assert made.calibration_sha256 is not None


def test_another_chip_is_another_package() -> None:
    made = planned(soc_model="sm8750")
    assert (made.target, made.soc_model) == ("qnn-SM8750", "SM8750")
    assert planned(soc_model="SM8650").target == "qnn"


def test_the_attached_phone_decides_unless_a_chip_is_named() -> None:
    def for_phones(names: list[str], **choices: Any) -> Any:
        attached = lambda: attached_soc(lambda: names)  # noqa: E731
        options = BuildOptions(targets=QNN, choices=Choices(**choices), attached=attached)
        return plan(options)[0].soc_model

    assert for_phones(["SM8750"]) == "SM8750"
    assert for_phones(["sm8550-ac", "gs201"]) == "SM8550"
    assert for_phones(["gs201"]) == "SM8650"
    assert for_phones([]) == "SM8650"
    assert for_phones(["SM8750"], soc_model="SM8850") == "SM8850"
    with pytest.raises(UsageError, match="cannot tell which SoC"):
        for_phones(["SM8750", "SM8550"])


def test_four_bits_may_have_a_scale_per_block() -> None:
    made = planned(group_size=64)
    assert (made.recipe.linear, made.recipe.group_size) == ("16a4w", 64)
    assert made != planned()


def test_half_precision_looks_at_no_text() -> None:
    made = planned(linear="fp16")
    assert made.calibration_sha256 is None
    assert (made.recipe.embedding, made.recipe.kv_cache) == ("fp16", "fp16")


def test_the_calibration_text_decides_the_plan(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("some words\n")
    made = planned(compression=CompressionChoices(text=text))
    assert made.compression is None
    assert made.calibration_sha256 != planned().calibration_sha256


@pytest.mark.parametrize(
    ("choices", "why"),
    [
        ({"linear": "8da4w"}, "qnn has the recipes fp16, 16a8w, 16a4w"),
        ({"soc_model": "SM8651"}, "did you mean 'SM8650'"),
        ({"linear": "fp16", "soc_model": "SM8350"}, "computes in integers only"),
        ({"kv_cache": "fp16"}, "it is int8 then"),
        ({"embedding": "4w"}, "it is 16w then"),
        ({"linear": "16a8w", "group_size": 32}, "one scale per row"),
        ({"group_size": 32, "lowering": "reference"}, "ExecuTorch's own lowering"),
        ({"group_size": 32, "soc_model": "SM8350"}, "of one scale per row only"),
        ({"compression": CompressionChoices(calibrate="gptq")}, "4-bit integers"),
    ],
)
def test_what_the_npu_cannot_do_is_refused(choices: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(**choices)
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("choices", "why"),
    [({"soc_model": "SM8650"}, "runs on every SoC"), ({"linear": "16a4w"}, "has the recipes")],
)
def test_other_targets_have_no_chip_and_other_recipes(choices: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(BuildOptions(choices=Choices(**choices)))
    assert why in caught.value.why


def test_the_prediction_counts_both_methods() -> None:
    (quantised,) = predict(BuildOptions(targets=QNN))
    (half,) = predict(BuildOptions(targets=QNN, choices=Choices(linear="fp16")))
    assert 2 * 2 * half.parameters < half.file_bytes < 1.2 * 2 * 2 * (half.parameters + 2048 * 256)
    assert quantised.file_bytes < half.file_bytes / 2
    assert quantised.kv_bytes_per_token == 8 * 2 * 2 * 64  # layers, k and v, heads, channels


@pytest.mark.parametrize("text", ["--dry-run", "--dry-run --json"])
def test_a_dry_run_shows_the_plan(run: Callable[..., Any], text: str) -> None:
    ran = run("build", "--target", "qnn", *text.split())
    assert ran.code == 0
    assert "16a4w" in ran.out


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "group"), [("fp16", None), ("16a4w", 32), ("16a8w", None)])
def test_a_package_is_built_and_proved_on_the_emulator(
    tmp_path: Path, recipe: str, group: int | None
) -> None:
    """Two layers of the embedded model; both methods, one delegate each, nothing outside."""
    choices = Choices(
        linear=recipe,
        group_size=group,
        max_seq_len=48,
        prefill_chunk=8,
        compression=CompressionChoices(prune=("layers:2-7",)),
    )
    (built,) = build(BuildOptions(targets=QNN, out=tmp_path, choices=choices))
    manifest = built.manifest
    assert manifest.placement.delegates == 2
    assert manifest.placement.fallback == ()
    assert [method.name for method in manifest.methods] == ["prefill", "decode"]
    specs = [spec for method in manifest.methods for spec in (*method.inputs, *method.outputs)]
    cache = "float32" if recipe == "fp16" else "uint8"
    wanted = {"tokens": "int32", "positions": "int32", "mask": "float32", "logits": "float32"}
    assert {s.name: s.dtype for s in specs} == {s.name: wanted.get(s.name, cache) for s in specs}
    assert all((s.encoding is None) == (s.dtype != "uint8") for s in specs)
    assert manifest.runtime_version == "2.49.40"
    assert bool(manifest.activation_ranges) == (recipe != "fp16")
    assert all(low <= high for low, high in manifest.activation_ranges.values())
    assert (built.folder / "qnn.log").is_file()
    assert not list(built.folder.glob(".*"))
    npu = manifest.npu
    assert npu is not None
    assert [context.methods for context in npu.contexts] == [
        ("prefill",), ("decode",), ("prefill", "decode"),
    ]  # fmt: skip
    assert set(npu.graphs_sha256) == {"prefill", "decode"}
    table = 2 * 2048 * 256  # of the embedding, where a step reads one row
    read_whole = sum(form.bytes for form in manifest.weights) - table
    assert read_whole < (npu.moved_bytes("decode") or 0) < 2 * read_whole
    found = verify(built.folder, VerifyOptions(decode_steps=6))
    failed = [row for row in found.parity.rows if row.status == "failed"]
    assert not failed, json.dumps([row.reason for row in failed])
    (again,) = build(BuildOptions(targets=QNN, out=tmp_path, choices=choices))
    assert again.up_to_date


@pytest.mark.slow
@pytest.mark.sdk
def test_eval_asks_the_emulator_what_it_asks_the_cpu(tmp_path: Path) -> None:
    """A question of each kind that fits and a text of 48 tokens; two layers of the embedded model.

    16a8w moves the perplexity of whole text by 0.1 % (docs/targets/qnn.md), of 113 tokens by 0.5 %
    at most; twice that is allowed.
    """

    def asked(target: str, recipe: str) -> dict[str, tuple[int, float]]:
        choices = Choices(
            linear=recipe,
            max_seq_len=48,
            prefill_chunk=8,
            compression=CompressionChoices(prune=("layers:2-7",)),
        )
        (built,) = build(BuildOptions(targets=(target,), out=tmp_path, choices=choices))
        options = EvalOptions(lm_eval=LmEvalOptions(limit=1), threads=1)
        found = evaluate(built.folder, options).evaluation.tasks
        return {row.task: (row.samples, row.metrics[0].value) for row in found if row.metrics}

    ours, theirs = asked("qnn", "16a8w"), asked("xnnpack", "fp32")
    assert {name: count for name, (count, _) in ours.items()} == {
        name: count for name, (count, _) in theirs.items()
    }
    assert ours["pocket"][0] == 10, "all but the story"
    (_, have), (_, want) = ours["pocket/held-out"], theirs["pocket/held-out"]
    assert have == pytest.approx(want, rel=0.01)
