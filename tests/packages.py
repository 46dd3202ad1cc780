"""Packages for tests: one around the toy model, which needs no runtime, and the embedded one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mobilepack.contract.base import content_id
from mobilepack.contract.manifest import (
    BuildPlan,
    Licence,
    Manifest,
    MemorySplit,
    ModelIdentity,
    Placement,
    Recipe,
    TokenizerInfo,
)
from mobilepack.contract.package import file_entry
from mobilepack.contract.reference import (
    TOP_K,
    GreedyReference,
    Reference,
    ReferenceIndex,
    ReferenceSequence,
    Rows,
    Variant,
    record,
    sample_ids,
)
from mobilepack.harness.runner import Logits
from mobilepack.testing import ToyModel

VOCAB = 61
SEQUENCES = {
    "first": tuple((7 * i + 3) % VOCAB for i in range(9)),
    "second": tuple((5 * i * i + 1) % VOCAB for i in range(14)),
    "longest": tuple((3 * i + i * i) % VOCAB for i in range(40)),
}


def toy_logits(ids: tuple[int, ...]) -> Logits:
    """Return the toy model's logits after every token: float32 [len(ids), 61]."""
    model = ToyModel(VOCAB)
    rows = [model(np.array([i], dtype=np.int64), n).copy() for n, i in enumerate(ids)]
    return np.stack(rows)


def greedy_toy(prompt: tuple[int, ...], count: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the toy model's greedy text and how close each choice was."""
    ids, gaps = list(prompt), []
    for _ in range(count):
        logits = toy_logits(tuple(ids))[-1]
        order = np.argsort(-logits, kind="stable")
        gaps.append(float(logits[order[0]] - logits[order[1]]))
        ids.append(int(order[0]))
    return tuple(ids[len(prompt) :]), tuple(gaps)


def toy_rows(noise: float, seed: int = 0) -> Rows:
    """Return the rows of all sequences, with noise of a standard deviation on every logit."""
    rng = np.random.default_rng(seed)
    logits = np.concatenate([toy_logits(ids) for ids in SEQUENCES.values()])
    logits = (logits + noise * rng.standard_normal(logits.shape)).astype(np.float32)
    following = [n for ids in SEQUENCES.values() for n in (*ids[1:], -1)]
    return record(logits, following, sample_ids(VOCAB))


def toy_reference(*, quantised: bool = False, greedy: bool = True) -> Reference:
    """Return the toy model's flight recorder; its `fp32` is noisy if it is to be quantised."""
    rows: dict[Variant, Rows] = {"fp32": toy_rows(0.0)}
    if quantised:
        rows = {"fp32": toy_rows(0.2), "quantised": toy_rows(0.0), "floor": toy_rows(0.02, seed=1)}
    text, gaps = greedy_toy(SEQUENCES["second"], 6)
    written = GreedyReference(
        name="greedy",
        variant="quantised" if quantised else "fp32",
        prompt_ids=SEQUENCES["second"],
        token_ids=text,
        gaps=gaps,
    )
    index = ReferenceIndex(
        vocab_size=VOCAB,
        sample_ids=sample_ids(VOCAB),
        top_k=min(TOP_K, VOCAB),
        variants=tuple(rows),
        sequences=tuple(ReferenceSequence(name=n, token_ids=i) for n, i in SEQUENCES.items()),
        greedy=(written,) if greedy else (),
    )
    return Reference(index, rows)


def build_plan(recipe: Recipe, max_seq_len: int, source: str = "toys/toy") -> BuildPlan:
    """Return the plan of a toy package."""
    return BuildPlan(
        target="xnnpack",
        backend="xnnpack",
        model=ModelIdentity(source=source, family="toy", fingerprint="0"),
        recipe=recipe,
        max_seq_len=max_seq_len,
        prefill_chunk=16,
        toolchain={"mobilepack": "test"},
    )


def toy_package(
    root: Path,
    *,
    quantised: bool = False,
    greedy: bool = True,
    max_seq_len: int = 64,
    source: str = "toys/toy",
) -> Path:
    """Write a package around the toy model: what `FakeHarness` runs passes every check."""
    root.mkdir(parents=True)
    (root / "model.pte").write_bytes(b"toy program")
    toy_reference(quantised=quantised, greedy=greedy).write(root / "reference")
    _write_tokenizer(root)
    recipe = Recipe() if quantised else Recipe(linear="fp32", group_size=0, embedding="fp32")
    plan = build_plan(recipe, max_seq_len, source)
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    manifest = Manifest(
        plan_id=content_id(plan),
        plan=plan,
        parameters=1000,
        files=tuple(file_entry(root, path) for path in files),
        methods=(),
        metadata={"get_vocab_size": VOCAB, "use_kv_cache": True, "get_eos_ids": (2,)},
        placement=Placement(
            delegates=1,
            delegated_operators=9,
            fallback_operators=0,
            delegated_weight_bytes=11,
            fallback_weight_bytes=0,
            fallback=(),
        ),
        weights=(),
        quantised_share=1.0 if quantised else 0.0,
        memory=MemorySplit(parameters_bytes=11, kv_cache_bytes=4, activations_bytes=4),
        tokenizer=TokenizerInfo(
            kind="huggingface",
            files=("tokenizer.json", "tokenizer_config.json"),
            bos_id=None,
            eos_ids=(2,),
            chat_template=True,
        ),
        licence=Licence(name="Apache-2.0"),
        stages=(),
    )
    (root / "manifest.json").write_text(manifest.to_json())
    return root


def _write_tokenizer(root: Path) -> None:
    """Write a tokenizer of single characters: 0 unknown, 1 user, 2 end, then a to z and more."""
    characters = "abcdefghijklmnopqrstuvwxyz0123456789 .,?!'-+*/=:;()[]{}<>"
    tokens = ["<unk>", "<user>", "<end>", *characters][:VOCAB]
    special = [
        {"id": i, "content": t, "special": True, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": False}
        for i, t in enumerate(tokens[:3])
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": ""},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "unk_token": "<unk>",
        },
    }
    template = (
        "{% for m in messages %}{{ '<user>' if m.role != 'assistant' else '' }}{{ m.content }}"
        "{{ '<end>' if m.role == 'assistant' else '' }}{% endfor %}"
    )
    config = {"eos_token": "<end>", "chat_template": template}
    (root / "tokenizer.json").write_text(json.dumps(tokenizer))
    (root / "tokenizer_config.json").write_text(json.dumps(config))
