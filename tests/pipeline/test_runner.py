"""ExecuTorch's own TextLLMRunner on our packages: its greedy text is that of transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilepack.commands.build import BuildOptions, build
from mobilepack.models.zoo import embedded_path
from mobilepack.pipeline.plan import Choices
from tests.models.checkpoints import load_reference, make_checkpoint
from tests.pipeline.build_server import ROOT

pytestmark = pytest.mark.slow

FP32 = {"linear": "fp32", "kv_cache": "fp32"}


def runner_texts(package: Path, prompts: list[tuple[str, int]]) -> list[str]:
    """Return what the official runner says after each prompt."""
    command = [sys.executable, "-m", "tests.pipeline.llm_runner"]
    done = subprocess.run(
        [*command, str(package), json.dumps(prompts)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    texts = json.loads(done.stdout)
    assert isinstance(texts, list)
    return texts


@torch.no_grad()
def greedy(folder: Path, prompt: str, count: int) -> tuple[str, float]:
    """Return transformers' greedy text and the smallest lead a chosen token had in logits."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model: Any = load_reference(folder)
    ids: list[int] = tokenizer.encode(prompt, add_special_tokens=False).ids
    length, lead = len(ids), float("inf")
    for _ in range(count):
        best = model(torch.tensor([ids])).logits[0, -1].topk(2)
        lead = min(lead, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
        if ids[-1] == model.config.eos_token_id:
            break
    text: str = tokenizer.decode(ids[length:], skip_special_tokens=False)
    return text, lead


def package_of(folder: Path, out: Path, **choices: Any) -> Path:
    options = BuildOptions(model=str(folder), out=out, choices=Choices(**choices))
    return build(options)[0].folder


EMBEDDED_PROMPTS = [
    ("<|bos|><|user|>What is 3 plus 4?<|end|><|assistant|>", 24),
    ("<|bos|><|user|>Tell me a short story about a dog.<|end|><|assistant|>", 48),
    ("<|bos|>Once upon a time", 40),
]


def test_the_embedded_model_says_the_same(tmp_path: Path) -> None:
    package = package_of(embedded_path(), tmp_path, **FP32, max_seq_len=128, prefill_chunk=16)
    texts = runner_texts(package, EMBEDDED_PROMPTS)
    for (prompt, count), found in zip(EMBEDDED_PROMPTS, texts, strict=True):
        expected, lead = greedy(embedded_path(), prompt, count)
        assert lead > 1e-3  # fp32 differs by 1e-5: no choice is a matter of rounding
        assert len(expected) > 3
        assert found == expected


def test_a_quantised_package_runs_too(tmp_path: Path) -> None:
    package = package_of(embedded_path(), tmp_path, max_seq_len=128, prefill_chunk=128)
    first, again = runner_texts(package, [EMBEDDED_PROMPTS[1]] * 2)
    assert first == again
    assert len(first) > 20


def say_ascii_only(folder: Path) -> None:
    """Zero the head's rows of all other tokens: the runner's binding fails on a piece of UTF-8."""
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tensors = load_file(folder / "model.safetensors")
    for index in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([index], skip_special_tokens=False)
        if index < 3 or not text.isascii() or not text.isprintable():
            tensors["lm_head.weight"][index] = 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("family", ["qwen3", "mistral"])
def test_a_random_checkpoint_says_the_same(family: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / family, family, seed=3)
    say_ascii_only(folder)
    package = package_of(folder, tmp_path / "out", **FP32, max_seq_len=64, prefill_chunk=8)
    prompts = [("the quick brown fox", 12), ("one two three four five six", 20)]
    for (prompt, count), found in zip(prompts, runner_texts(package, prompts), strict=True):
        expected, lead = greedy(folder, prompt, count)
        assert lead > 1e-4
        assert found == expected
