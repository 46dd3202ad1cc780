"""Tiny decoders with random weights, without a checkpoint: specs as the families read them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from mobilepack.models.decoder import Decoder, with_weights
from mobilepack.models.families.registry import family_of
from mobilepack.models.spec import DecoderSpec, parameter_shapes
from mobilepack.models.tables import make_tables

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_BASE: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_OWN: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
}


def tiny_spec(family: str = "llama", **overrides: Any) -> DecoderSpec:
    """Return the spec of a config.json of so many layers and channels."""
    config = {**_BASE, **_OWN[family], **overrides, "model_type": family}
    return family_of(config).read(config)


class RandomWeights(dict[str, torch.Tensor]):
    """Parameters of a spec that answer like `models/weights.py`; norms and biases are random."""

    def __init__(self, spec: DecoderSpec, seed: int = 0) -> None:
        super().__init__()
        self.tied = spec.tied_head
        generator = torch.Generator().manual_seed(seed)
        for name, shape in parameter_shapes(spec).items():
            scale = shape[-1] ** -0.5 if len(shape) > 1 else 0.1
            values = torch.randn(shape, generator=generator) * scale
            self[name] = values + 1 if name.endswith("norm.weight") else values
        if self.tied:
            self["head.weight"] = self["embed.weight"]

    def names(self) -> Collection[str]:
        return self.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self[name].shape)

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        return self[name][start:stop]

    def tensor(self, name: str) -> torch.Tensor:
        return self[name]

    def identity(self, name: str) -> str:
        return "embed.weight" if self.tied and name == "head.weight" else name


def tables(spec: DecoderSpec, length: int) -> dict[str, torch.Tensor]:
    """Return the tables of positions under the names that evaluator and writer know."""
    return make_tables(spec, length)


def random_ids(spec: DecoderSpec, length: int, seed: int = 0) -> tuple[int, ...]:
    """Return random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, spec.vocab_size, (length,), generator=generator).tolist())


def feed(
    decoder: Decoder, ids: Sequence[int], calls: Sequence[int], start: int = 0
) -> torch.Tensor:
    """Feed ids in calls of the given lengths; returns the logits after each, [calls, vocab]."""
    rows, position = [], start
    for length in calls:
        tokens = torch.tensor([ids[position - start : position - start + length]])
        rows.append(decoder(tokens, torch.tensor([position]))[0])
        position += length
    return torch.stack(rows)


def eager_logits(spec: DecoderSpec, weights: RandomWeights, ids: Sequence[int]) -> torch.Tensor:
    """Return the eager decoder's logits after every token, fed one by one: [len(ids), vocab]."""
    return feed(with_weights(spec, len(ids), weights), ids, (1,) * len(ids))


def relative_rms(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the RMS of the difference over the reference's standard deviation."""
    return float((found - reference).pow(2).mean().sqrt() / reference.std())


def same_top1(found: torch.Tensor, reference: torch.Tensor) -> bool:
    """Say whether the largest logit is the same in every row."""
    return bool(torch.equal(found.argmax(-1), reference.argmax(-1)))
