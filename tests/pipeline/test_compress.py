"""Packages of changed weights are whole packages: they verify and say what was done."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from mobilepack.commands.build import BuildOptions, Built, build
from mobilepack.commands.plan import plan
from mobilepack.commands.verify import verify
from mobilepack.contract.manifest import Recipe
from mobilepack.models.compression.fold import Folded, Folds, joints
from mobilepack.models.compression.gradient import channel_importance
from mobilepack.models.streaming import FP32, Lane, Quantisation, run_lanes
from mobilepack.models.tables import make_tables
from mobilepack.models.weights import open_model
from mobilepack.models.zoo import embedded_path
from mobilepack.models.zoo.corpus import calibration_text
from mobilepack.pipeline.calibrate import Task, calibrate
from mobilepack.pipeline.calibration_rows import text_rows
from mobilepack.pipeline.compression_options import CompressionChoices
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.plan import Choices
from mobilepack.pipeline.reference import Eager
from tests.models.checkpoints import make_checkpoint
from tests.models.networks import (
    FAMILIES,
    RandomWeights,
    eager_logits,
    random_ids,
    relative_rms,
    tiny_spec,
)
from tests.runtime import Program

pytestmark = pytest.mark.slow
Make = Callable[..., Built]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return the embedded model's package with some compression; equal wishes share one."""
    cache: dict[str, Path] = {}

    def build_it(linear: str = "8da4w", **wishes: Any) -> Built:
        key = repr((linear, sorted(wishes.items())))
        cache.setdefault(key, tmp_path_factory.mktemp("compressed"))
        choices = Choices(
            linear=linear,
            max_seq_len=96,
            prefill_chunk=32,
            compression=CompressionChoices(**wishes),
        )
        return build(BuildOptions(out=cache[key], choices=choices))[0]

    return build_it


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(calibration_text(40)))
    return path


WISHES: tuple[dict[str, Any], ...] = (
    {"calibrate": "gptq"},
    {"calibrate": "awq"},
    {"calibrate": "hqq", "prune": ("layers:3-4",)},
    {"prune": ("width:0.5",)},
    {"prune": ("wanda:2:4", "width:0.25"), "calibrate": "gptq"},
)


@pytest.mark.parametrize("wishes", WISHES, ids=str)
def test_it_verifies_and_is_built_once(make: Make, wishes: dict[str, Any]) -> None:
    built = make(**wishes)
    report = built.manifest.compression
    assert report is not None
    assert report.parameters_before >= built.manifest.parameters
    lengths = {"max_seq_len": 96, "prefill_chunk": 32}
    choices = Choices(**lengths, compression=CompressionChoices(**wishes))
    (predicted,) = plan(BuildOptions(choices=choices))
    assert predicted.parameters == built.manifest.parameters
    result = verify(built.folder)
    assert result.parity.passed, result.parity.rows
    assert make(**wishes).up_to_date
    assert not list(built.folder.rglob(".*"))


def test_the_report_says_what_is_gone(make: Make) -> None:
    built = make(prune=("wanda:2:4", "width:0.25"), calibrate="gptq")
    report = built.manifest.compression
    assert report is not None
    assert report.kept_ffn_channels == (544,) * 8  # 528 is no multiple of 32
    assert report.kept_kv_heads == ((0, 1),) * 8
    assert 0.4 < report.zero_share < 0.5  # the head is not pruned
    assert report.text_tokens == 32 * 96
    assert make().manifest.compression is None


def test_fewer_tokens_make_a_package_that_speaks(make: Make, corpus: Path) -> None:
    from mobilepack.commands.answering import answering
    from mobilepack.contract.package import open_package

    built = make(linear="fp32", vocabulary=corpus)
    report = built.manifest.compression
    assert report is not None
    assert report.tokens < report.tokens_before == 2048
    whole = make(linear="fp32")
    said = []
    for package in (built.folder, whole.folder):
        with answering(open_package(package), threads=1, timeout_s=60) as model:
            context = model.tokenizer.encode("Once upon a time there was")
            said.append(model.answer(tuple(context), 4)[0])
    assert said[0]
    assert built.manifest.parameters == whole.manifest.parameters - 256 * (2048 - report.tokens)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_executorch_s_own_lowering_gets_the_same_integers(tmp_path: Path) -> None:
    """Both programs compute alike to float32's last bits; other integers are 0.4 away."""
    source = make_checkpoint(tmp_path / "llama", "llama", tie_word_embeddings=True)

    def logits(lowering: Any, calibrate: Any) -> torch.Tensor:
        choices = Choices(
            linear="8da4w",
            max_seq_len=32,
            prefill_chunk=8,
            kv_cache="fp32",
            lowering=lowering,
            compression=CompressionChoices(calibrate=calibrate),
        )
        out = tmp_path / f"{lowering} {calibrate}"
        (made,) = build(BuildOptions(model=str(source), out=out, choices=choices))
        return Program(made.folder / "model.pte").feed(tuple(range(40, 56)), (8, 8))

    fast = logits("fast", "gptq")
    assert relative_rms(fast, logits("reference", "gptq")) <= 1e-6
    assert relative_rms(fast, logits("fast", None)) > 0.1


def test_calibration_beats_rounding_to_nearest_on_the_embedded_model(tmp_path: Path) -> None:
    """And half a perplexity point of a percent is lost at most; nearest loses 0.6 %."""
    model = open_model(embedded_path())
    try:
        exported = export_decoder(model.spec, 512, 512)
        tables = make_tables(model.spec, 512)
        recipe = Recipe(kv_cache="fp16")
        rows = text_rows(embedded_path(), None, 512)
        task = Task(exported, model.weights, tables, recipe, rows)

        def loss(weights: Any, quantisation: Quantisation) -> float:
            lanes = [Lane(row, quantisation) for row in _held_out(embedded_path(), 8)]
            logits = run_lanes(exported, weights, tables, lanes)
            each = [
                float(functional.cross_entropy(found[:-1], torch.tensor(lane.token_ids[1:])))
                for lane, found in zip(lanes, logits, strict=True)
            ]
            return sum(each) / len(each)

        stored = Quantisation(32, "4w", "fp16")
        fp32, nearest = loss(model.weights, FP32), loss(model.weights, stored)
        for method in ("gptq", "awq"):
            folder = tmp_path / method
            folder.mkdir()
            weights = calibrate(method, task, folder, lambda share: None)
            assert loss(weights, stored) < nearest - 0.001, method
            assert math.exp(loss(weights, stored) - fp32) < 1.005, method
            assert loss(weights, FP32) == pytest.approx(fp32, abs=1e-5), method
            again = calibrate(method, task, folder, lambda share: pytest.fail("calibrated twice"))
            assert loss(again, stored) == loss(weights, stored)
    finally:
        model.close()


def _held_out(folder: Path, rows: int) -> list[tuple[int, ...]]:
    from tokenizers import Tokenizer

    from mobilepack.models.zoo.evaluate import held_out_rows

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tuple(row) for row in held_out_rows(tokenizer, 512).tolist()[:rows]]


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_scales_change_nothing(family: str, tmp_path: Path) -> None:
    spec = tiny_spec(family)
    weights = RandomWeights(spec)
    exported = export_decoder(spec, 32, 8)
    folds = Folds()
    generator = torch.Generator().manual_seed(0)
    frozen = frozenset({"head.weight"} if spec.tied_head else ())
    found = joints(exported, frozen)
    for joint in found.values():
        columns = weights.shape(joint.readers[0])[1]
        folds.add(joint, joint.shared(0.5 + torch.rand(columns, generator=generator)))
    makers = {name.split(".")[-2] for joint in found.values() for name in joint.makers}
    assert makers >= {"attn_norm", "mlp_norm", "up", "v"}
    ids = random_ids(spec, 9)
    view = Folded(weights, folds)  # type: ignore[arg-type]  # it need not count itself
    (logits,) = run_lanes(exported, view, make_tables(spec, 32), [Lane(ids)])
    assert relative_rms(logits, eager_logits(spec, weights, ids)) <= 1e-5
    folds.save(tmp_path / "folds")
    loaded = Folds.load(tmp_path / "folds")
    for kept, read in ((folds.columns, loaded.columns), (folds.rows, loaded.rows)):
        assert kept.keys() == read.keys()
        assert all(torch.equal(kept[name], read[name]) for name in kept)


def test_importance_is_the_derivative_by_a_gate() -> None:
    """Central differences of the loss in float32: relative 1e-2."""
    spec = tiny_spec("llama")
    weights = RandomWeights(spec)
    exported, tables = export_decoder(spec, 32, 8), make_tables(spec, 32)
    ids = random_ids(spec, 24)
    names = ("layers.0.down.weight", "layers.1.o.weight")
    eager = Eager(exported, weights, tables)
    found = channel_importance(eager, [ids], names, lambda share: None)

    def loss() -> float:
        (logits,) = run_lanes(exported, weights, tables, [Lane(ids)])
        return float(functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:])))

    for name in names:
        channel = int(found[name].argmax())
        before = weights[name].clone()
        sides = []
        for step in (0.05, -0.05):
            weights[name] = before.clone()
            weights[name][:, channel] *= 1 + step
            sides.append(loss())
        weights[name] = before
        slope = (sides[0] - sides[1]) / 0.1
        assert abs(slope) == pytest.approx(float(found[name][channel]), rel=1e-2)
