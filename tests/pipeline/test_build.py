"""A built package: what lies in it, what its manifest says, and that both are true."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilepack.commands.build import BuildOptions, build
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import open_package
from mobilepack.contract.reference import Reference, Variant
from mobilepack.pipeline.plan import Choices
from mobilepack.pipeline.reference import PERTURBATION
from tests.models.checkpoints import load_reference, make_checkpoint
from tests.pipeline.packages import files
from tests.runtime import Program

pytestmark = pytest.mark.slow

LENGTHS = {"max_seq_len": 32, "prefill_chunk": 8}
Builds = Callable[..., Path]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint with a licence and more files than a package needs."""
    folder = make_checkpoint(tmp_path_factory.mktemp("source") / "qwen3", "qwen3", dtype="bfloat16")
    (folder / "LICENSE").write_text("Tiny Licence 1.0\n\nDo as you like.\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA random model.\n")
    (folder / "training_args.bin").write_bytes(b"not needed")
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """Return a package; equal choices share one."""
    cache: dict[str, Path] = {}

    def make(**choices: Any) -> Path:
        key = repr(sorted(choices.items()))
        if key not in cache:
            options = BuildOptions(
                model=str(source),
                out=tmp_path_factory.mktemp("built"),
                choices=Choices(**{**LENGTHS, **choices}),
            )
            (made,) = build(options)
            assert not made.up_to_date
            cache[key] = made.folder
        return cache[key]

    return make


def manifest_of(folder: Path) -> Manifest:
    return Manifest.read(folder / "manifest.json")


def test_a_package_holds_program_tokenizer_reference_and_licence(built: Builds) -> None:
    assert set(files(built())) == {
        "manifest.json",
        "model.pte",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "reference/reference.json",
        "reference/reference.safetensors",
        "LICENSE",
    }


def test_every_file_is_listed_with_its_length_and_checksum(built: Builds) -> None:
    content = files(built())
    del content["manifest.json"]
    listed = {e.path: (e.bytes, e.sha256) for e in manifest_of(built()).files}
    assert listed == {n: (len(d), hashlib.sha256(d).hexdigest()) for n, d in content.items()}
    open_package(built())


def test_the_plan_id_is_the_hash_of_the_plan_as_it_is_written(built: Builds) -> None:
    data = json.loads((built() / "manifest.json").read_text())
    text = json.dumps(data["plan"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert data["plan_id"] == hashlib.sha256(text.encode()).hexdigest()
    assert data["schema"] == "mobilepack/manifest/1"


def test_the_manifest_names_model_licence_and_tokenizer(built: Builds, source: Path) -> None:
    manifest = manifest_of(built())
    assert manifest.plan.model.source == str(source)
    assert manifest.plan.model.family == "qwen3"
    assert manifest.parameters == sum(p.numel() for p in load_reference(source).parameters())
    assert (manifest.licence.name, manifest.licence.files) == ("apache-2.0", ("LICENSE",))
    assert manifest.tokenizer.files == ("tokenizer.json", "tokenizer_config.json")
    assert manifest.tokenizer.chat_template
    assert manifest.tokenizer.eos_ids == (2,)


def test_methods_and_metadata_are_those_of_the_program(built: Builds) -> None:
    manifest = manifest_of(built())
    (forward,) = manifest.methods
    assert [(t.name, t.dtype, t.shape, t.dynamic) for t in (*forward.inputs, *forward.outputs)] == [
        ("tokens", "int64", (1, 8), (1,)),
        ("input_pos", "int64", (1,), ()),
        ("logits", "float32", (1, 320), ()),
    ]
    assert manifest.metadata == {
        "get_bos_id": 0,
        "get_eos_ids": (2,),
        "get_max_seq_len": 8,
        "get_max_context_len": 32,
        "get_vocab_size": 320,
        "get_n_layers": 2,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
    }
    answers = Program(built() / "model.pte").constants()
    assert answers == {
        name: list(value) if isinstance(value, tuple) else [value]
        for name, value in manifest.metadata.items()
    }


def vectors_of(source: Path) -> int:
    return sum(p.numel() for p in load_reference(source).parameters() if p.ndim == 1)


@pytest.mark.parametrize(
    ("choices", "quantised"),
    [({}, True), ({"linear": "fp32"}, False), ({"embedding": "fp32"}, None)],
    ids=str,
)
def test_the_quantised_share_is_of_numbers_stored(
    built: Builds, source: Path, choices: dict[str, Any], quantised: bool | None
) -> None:
    manifest = manifest_of(built(**choices))
    rows = {row.format: row for row in manifest.weights}
    total, plain = sum(row.parameters for row in manifest.weights), rows["fp32"].parameters
    assert manifest.quantised_share == pytest.approx(1 - plain / total)
    assert manifest.memory.parameters_bytes == sum(row.bytes for row in manifest.weights)
    assert rows["fp32"].bytes == 4 * plain
    if quantised is None:  # the linear maps only
        assert plain == vectors_of(source) + 320 * 64
    else:
        assert plain == (vectors_of(source) if quantised else manifest.parameters)
    assert (built(**choices) / "model.pte").stat().st_size > manifest.memory.parameters_bytes


@pytest.mark.parametrize("cache", ["fp32", "fp16"])
def test_memory_is_split_and_the_cache_is_of_the_longest_sequence(
    built: Builds, cache: str
) -> None:
    memory = manifest_of(built(kv_cache=cache)).memory
    width = {"fp32": 4, "fp16": 2}[cache]
    # 2 layers of keys and values, 2 heads of 32; half-precision caches come in blocks of 64 tokens
    positions = 32 if cache == "fp32" else 64
    assert memory.kv_cache_bytes == 2 * 2 * positions * 2 * 32 * width
    assert memory.activations_bytes > 0


def test_placement_accounts_for_every_weight_and_names_what_fell_back(built: Builds) -> None:
    manifest = manifest_of(built())
    placement = manifest.placement
    weights = placement.delegated_weight_bytes + placement.fallback_weight_bytes
    assert weights == manifest.memory.parameters_bytes
    assert placement.delegates >= 3
    assert placement.delegated_operators > placement.fallback_operators
    assert placement.fallback_operators == sum(row.count for row in placement.fallback)
    names = [row.operator for row in placement.fallback]
    assert names == sorted(set(names))
    assert "quantized_decomposed::embedding_4bit" in names


def test_the_stages_are_in_order_and_cost_something(built: Builds) -> None:
    stages = manifest_of(built()).stages
    assert [s.name for s in stages] == ["export", "lower", "weights", "reference"]
    assert all(s.wall_s >= 0 and s.cpu_s >= 0 and s.peak_rss_bytes > 2**20 for s in stages)


@torch.no_grad()
def expected_logits(source: Path, ids: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return transformers' logits after every token, [len(ids), vocab]."""
    logits: torch.Tensor = load_reference(source)(torch.tensor([ids])).logits[0]
    return logits.numpy()


def test_the_reference_is_what_transformers_computes(built: Builds, source: Path) -> None:
    reference = Reference.read(built() / "reference")
    assert set(reference.index.variants) == {"fp32", "quantised", "floor"}
    assert reference.index.perturbation == PERTURBATION
    lengths = {s.name: len(s.token_ids) for s in reference.index.sequences}
    assert lengths["longest"] == 32
    assert lengths["first"] % 2 != lengths["second"] % 2
    for sequence in reference.index.sequences:
        theirs = expected_logits(source, sequence.token_ids)
        start = reference.offset(sequence.name)
        rows = reference.rows["fp32"].take(list(range(start, start + len(theirs))))
        np.testing.assert_allclose(
            rows.sampled, theirs[:, list(reference.index.sample_ids)], atol=1e-4
        )
        assert (rows.top_ids[:, 0] == theirs.argmax(1)).all()
        lse = np.log(np.exp(theirs.astype(np.float64)).sum(1))
        np.testing.assert_allclose(rows.logsumexp, lse, atol=1e-4)


VARIANT: dict[str, Variant] = {"fp32": "fp32", "8da4w": "quantised"}


@pytest.mark.parametrize("linear", VARIANT)
def test_the_program_repeats_its_reference(built: Builds, linear: str) -> None:
    folder = built(linear=linear, kv_cache="fp32")
    reference, program = Reference.read(folder / "reference"), Program(folder / "model.pte")
    for sequence in reference.index.sequences:
        ids = sequence.token_ids
        found = program.feed(ids, (1,) * len(ids)).numpy()[:, list(reference.index.sample_ids)]
        start = reference.offset(sequence.name)
        rows = {v: r.sampled[start : start + len(ids)] for v, r in reference.rows.items()}
        rms = float(np.sqrt(((found - rows[VARIANT[linear]]) ** 2).mean()) / found.std())
        limit = 1e-5
        if linear == "8da4w":
            floor = rows["floor"] - rows["quantised"]
            limit = 2 * float(np.sqrt((floor**2).mean()) / rows["quantised"].std())
        assert rms <= limit


def test_greedy_text_of_the_reference_is_the_programs(built: Builds) -> None:
    folder = built(linear="fp32", kv_cache="fp32")
    (greedy,) = Reference.read(folder / "reference").index.greedy
    program, ids = Program(folder / "model.pte"), list(greedy.prompt_ids)
    for expected in greedy.token_ids:
        found = program.feed(ids, (1,) * len(ids))[-1] if len(ids) <= 32 else None
        if found is None:
            break
        assert int(found.argmax()) == expected
        ids.append(expected)
    assert len(greedy.token_ids) == len(greedy.gaps)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_executorchs_own_lowering_makes_a_package_too(
    source: Path, built: Builds, tmp_path: Path
) -> None:
    choices = {**LENGTHS, "linear": "fp32", "kv_cache": "fp32"}
    one = make_checkpoint(tmp_path / "one layer", "llama", num_hidden_layers=1)
    packages = {}
    for lowering in ("fast", "reference"):
        options = BuildOptions(
            model=str(one),
            out=tmp_path / lowering,
            choices=Choices(**choices, lowering=lowering),  # type: ignore[arg-type]
        )
        packages[lowering] = build(options)[0]
    fast, reference = (packages[n].manifest for n in ("fast", "reference"))
    assert [s.name for s in reference.stages] == ["export", "lower (reference)", "reference"]
    assert reference.plan_id != fast.plan_id
    assert reference.parameters == fast.parameters
    assert reference.quantised_share == fast.quantised_share == 0
    assert reference.memory.kv_cache_bytes == fast.memory.kv_cache_bytes
    assert reference.memory.parameters_bytes == fast.memory.parameters_bytes
    ids = tuple(range(3, 27))
    ours, theirs = (
        Program(packages[n].folder / "model.pte").feed(ids, (8, 8, 7, 1))
        for n in ("fast", "reference")
    )
    assert float((ours - theirs).pow(2).mean().sqrt() / theirs.std()) <= 1e-5
    open_package(packages["reference"].folder)


def test_a_copy_of_the_checkpoint_elsewhere_gives_the_same_program(
    built: Builds, source: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(source, tmp_path / "copy")
    options = BuildOptions(model=str(copy), out=tmp_path / "out", choices=Choices(**LENGTHS))
    (again,) = build(options)
    assert (again.folder / "model.pte").read_bytes() == (built() / "model.pte").read_bytes()
