"""Small configurations of the families that are more than dense attention, and their references.

Every special feature of a family is on. The reference is transformers, with random weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.models.checkpoints import quiet_transformers

Fill = Callable[[str, torch.Tensor], bool]


@dataclass(frozen=True)
class Hybrid:
    """One row: config keys, and how special tensors are filled.

    Attributes:
        fill: Fills a tensor by its name and says so; others are normal.
        seed: Of the weights.
    """

    keys: dict[str, Any]
    fill: Fill = lambda name, tensor: False
    seed: int = 0


def _mamba2(name: str, tensor: torch.Tensor) -> bool:
    """Fill as transformers 5.23 `init_mamba2_weights` does: steps of 0.001 to 0.1."""
    if name.endswith("A_log"):
        tensor.uniform_(1, 8).log_()
    elif name.endswith("dt_bias"):
        tensor.uniform_(math.log(0.001), math.log(0.1)).exp_()
        tensor.add_(torch.log(-torch.expm1(-tensor)))
    elif name.endswith("mixer.D"):
        tensor.uniform_(0.5, 1.5)
    else:
        return False
    return True


def _recurrent_gemma(name: str, tensor: torch.Tensor) -> bool:
    """Fill as transformers 5.23 `_init_weights` does: decays of 0.9 to 0.999; norms around 0."""
    if name.endswith("recurrent_param"):
        tensor.uniform_(0.9**2, 0.999**2)
        tensor.log_().mul_(0.5).neg_().exp_().sub_(1.0).log_()
    elif name.endswith("norm.weight"):
        tensor.normal_(0.0, 0.1)
    else:
        return False
    return True


_COMMON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_ATTENTION: dict[str, Any] = {
    **_COMMON,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 64,
}


def _factors(first: float, pairs: int) -> list[float]:
    return [first + 0.1 * pair for pair in range(pairs)]


HYBRIDS: dict[str, Hybrid] = {
    "qwen3_moe": Hybrid(
        {
            **_ATTENTION,
            "num_hidden_layers": 3,
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
            "head_dim": 32,
            "mlp_only_layers": [1],
        }
    ),
    "qwen2_moe": Hybrid(
        {
            **_ATTENTION,
            "num_hidden_layers": 3,
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 64,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 2,
        },
        seed=1,  # with 0 two experts of one token are 2e-5 apart
    ),
    "olmoe": Hybrid(
        {**_ATTENTION, "num_experts": 8, "num_experts_per_tok": 3, "clip_qkv": 1.5},
    ),
    "mixtral": Hybrid({**_ATTENTION, "num_local_experts": 4, "sliding_window": 9}),
    "granitemoe": Hybrid(
        {
            **_ATTENTION,
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.1,
            "logits_scaling": 6.0,
            "tie_word_embeddings": True,
        }
    ),
    "phimoe": Hybrid(
        {
            **_ATTENTION,
            "num_local_experts": 4,
            "router_jitter_noise": 0.2,
            "attention_bias": True,
            "lm_head_bias": True,
            "rope_parameters": {
                **_LONGROPE,
                "short_factor": _factors(1.0, 8),
                "long_factor": _factors(2.0, 8),
                "short_mscale": 1.24,
                "long_mscale": 1.3,
            },
        }
    ),
    "lfm2": Hybrid(
        {
            **_ATTENTION,
            "num_hidden_layers": 4,
            "full_attn_idxs": [1, 3],
            "conv_bias": True,
            "block_multiple_of": 32,
            "tie_word_embeddings": True,
        }
    ),
    "mamba2": Hybrid(
        {
            **_COMMON,
            "num_heads": 8,
            "head_dim": 16,
            "state_size": 16,
            "n_groups": 2,
            "use_bias": True,
            "chunk_size": 8,
        },
        _mamba2,
    ),
    "recurrent_gemma": Hybrid(
        {
            **_COMMON,
            "num_hidden_layers": 3,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "intermediate_size": 192,
            "lru_width": 64,
            "attention_window_size": 9,
            "block_types": ["recurrent", "attention", "recurrent"],
        },
        _recurrent_gemma,
    ),
    "minicpm3": Hybrid(
        {
            **_ATTENTION,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_key_value_heads": 4,
            "q_lora_rank": 64,
            "kv_lora_rank": 32,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            "dim_model_base": 64,
            "rope_parameters": {
                **_LONGROPE,
                "short_factor": _factors(1.0, 4),
                "long_factor": _factors(2.0, 4),
            },
        }
    ),
}


def reference(family: str, **overrides: Any) -> Any:
    """Return transformers' model in fp32 with random weights, norms and biases random too."""
    row = HYBRIDS[family]
    auto_config, auto_model = quiet_transformers()
    config = auto_config.for_model(family, **{**row.keys, **overrides})
    torch.manual_seed(row.seed)
    model = auto_model.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if row.fill(name, parameter):
                continue
            parameter.normal_(0.0, 0.1 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5)
            if name.endswith("norm.weight"):
                parameter.add_(1.0)
    return model


def write_checkpoint(folder: Path, family: str, **overrides: Any) -> Any:
    """Write a checkpoint as transformers does, with published tensor names; returns its model."""
    model = reference(family, **overrides)
    model.save_pretrained(folder)
    return model
