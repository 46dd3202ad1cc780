"""Say how a Hugging Face checkpoint maps onto llama.cpp's names and row order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# ggml-org/llama.cpp conversion/base.py maps Hugging Face names the same way.
_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """Translate a Hugging Face tensor name into llama.cpp's.

    Raises:
        KeyError: The name belongs to no family the benchmarks write.
    """
    if name in _NAMES:
        return _NAMES[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def interleave_rope_rows(rows: NDArray[np.uint16], heads: int) -> NDArray[np.uint16]:
    """Reorder q or k rows from split halves (HF) to neighbouring pairs (llama.cpp).

    Source: ggml-org/llama.cpp conversion/llama.py, `LlamaModel.permute`.
    """
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(rows.shape)


def rope_factors(config: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """Compute per-frequency divisors of `llama3` rotary scaling, or None.

    Shape: float32 [head_dim / 2]. Source: ggml-org/llama.cpp conversion/llama.py,
    `generate_extra_tensors`.
    """
    scaling = config.get("rope_scaling")
    if not scaling:
        return None
    exponents = np.arange(0, config["head_dim"], 2, dtype=np.float64) / config["head_dim"]
    wavelengths = 2 * math.pi * config["rope_theta"] ** exponents
    trained = scaling["original_max_position_embeddings"]
    low, high, factor = (
        scaling["low_freq_factor"],
        scaling["high_freq_factor"],
        scaling["factor"],
    )
    smooth = np.clip((trained / wavelengths - low) / (high - low), 0.0, 1.0)
    blended: NDArray[np.float64] = 1.0 / ((1 - smooth) / factor + smooth)
    return blended.astype(np.float32)
