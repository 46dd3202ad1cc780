"""The independent reference of a case: transformers, or what this project wrote from a paper."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.matrix.cases import Case
from tests.models.checkpoints import quiet_transformers
from tests.models.hybrids import HYBRIDS
from tests.models.hybrids import reference as hybrid_model

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Reference:
    """An eager float32 model, and how it is published.

    Attributes:
        model: Maps ids `[1, S]` to an object with `logits`.
        config: What config.json says; None: transformers writes both files itself.
        published: Turns the model's tensors into the checkpoint's.
    """

    model: Any
    config: dict[str, Any] | None = None
    published: Callable[[Tensors], Tensors] = dict

    def logits(self, ids: tuple[int, ...]) -> torch.Tensor:
        """Return the logits `[S, V]` after every token."""
        with torch.no_grad():
            found: torch.Tensor = self.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        return found

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        if self.config is None:
            self.model.save_pretrained(folder)
            return
        (folder / "config.json").write_text(json.dumps(self.config))
        tensors = self.published(dict(self.model.state_dict()))
        whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        save_file(whole, folder / "model.safetensors", {"format": "pt"})


def reference_of(case: Case) -> Reference:
    """Return a case's reference, its weights far from their defaults."""
    from tests.matrix.written import WRITTEN

    if case.model_type in HYBRIDS:
        return Reference(hybrid_model(case.model_type))
    for name in (case.name, case.model_type):
        if name in WRITTEN:
            return WRITTEN[name](case)
    return Reference(transformers_model(case.model_type, case.keys, case.context, case.attention))


def transformers_model(
    model_type: str, keys: dict[str, Any], context: int = 0, attention: str = "eager"
) -> Any:
    """Return a model of transformers with random weights.

    With longrope, transformers chooses the factors by each sequence, a program's fixed tables by
    the longest, `context` (`rope.py`): the model computes with those; its config is saved whole.
    """
    auto_config, auto_model = quiet_transformers()
    saved, used = (auto_config.for_model(model_type, **keys) for _ in range(2))
    rope = getattr(used, "rope_parameters", None) or {}
    if context > rope.get("original_max_position_embeddings", context) and "long_factor" in rope:
        rope["short_factor"] = rope["long_factor"]
    torch.manual_seed(0)
    model = auto_model.from_config(used, attn_implementation=attention).float().eval()
    randomise(model)
    model.config = saved
    return model


def randomise(model: torch.nn.Module) -> None:
    """Give every parameter random numbers: a decoder that drops one of them must differ."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.1 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            parameter.normal_(0.0, scale)
            if parameter.ndim == 1 and name.endswith("weight"):  # of a norm
                parameter.add_(1.0)
