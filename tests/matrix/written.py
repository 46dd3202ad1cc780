"""References of the families that transformers lacks.

Where a family is algebra over one that transformers has, that one is the reference and only names
and factors are ours; OpenELM is written out from its paper (arXiv 2404.14619) and config.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.matrix.cases import Case
from tests.matrix.references import Reference, Tensors, randomise, transformers_model


def _minicpm(case: Case) -> Reference:
    """MiniCPM is Granite with other names for its factors (arXiv 2404.06395, section 4)."""
    keys = {k: v for k, v in case.keys.items() if k not in ("scale_emb", "scale_depth")}
    base, hidden = keys.pop("dim_model_base"), keys["hidden_size"]
    model = transformers_model(
        "granite",
        {
            **keys,
            "tie_word_embeddings": True,
            "embedding_multiplier": case.keys["scale_emb"],
            "residual_multiplier": case.keys["scale_depth"] / keys["num_hidden_layers"] ** 0.5,
            "attention_multiplier": (hidden // keys["num_attention_heads"]) ** -0.5,
            "logits_scaling": hidden / base,
        },
    )
    return Reference(model, {**case.keys, "model_type": "minicpm"}, _without_head)


def _without_head(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}


def _mobilellm(case: Case) -> Reference:
    """MobileLLM is Llama; with shared blocks, twice as many blocks of which pairs are equal."""
    keys = dict(case.keys)
    shared = keys.pop("layer_sharing", False)
    count = keys["num_hidden_layers"]
    keys |= {"tie_word_embeddings": keys.pop("share_embedding")}
    keys |= {"num_hidden_layers": 2 * count if shared else count}
    model = transformers_model("llama", keys)
    if shared:
        for index in range(count):
            twin = model.model.layers[2 * index].state_dict()
            model.model.layers[2 * index + 1].load_state_dict(twin)

    def published(tensors: Tensors) -> Tensors:
        found = _without_head(tensors)
        if not shared:
            return found
        kept = {}
        for name, tensor in found.items():
            parts = name.split(".")
            if parts[1] == "layers":
                if int(parts[2]) % 2:
                    continue
                parts[2] = str(int(parts[2]) // 2)
            kept[".".join(parts)] = tensor
        return kept

    return Reference(model, {**case.keys, "model_type": "mobilellm"}, published)


_QWEN = (
    ("model.embed_tokens", "transformer.wte"),
    ("model.layers", "transformer.h"),
    ("model.norm", "transformer.ln_f"),
    ("input_layernorm", "ln_1"),
    ("post_attention_layernorm", "ln_2"),
    ("self_attn.o_proj", "attn.c_proj"),
    ("mlp.gate_proj", "mlp.w2"),
    ("mlp.up_proj", "mlp.w1"),
    ("mlp.down_proj", "mlp.c_proj"),
)


def _mobillama(case: Case) -> Reference:
    """MobiLlama is Llama whose feed-forwards are equal, stored once per block."""
    model = transformers_model("llama", case.keys)
    for layer in model.model.layers[1:]:
        layer.mlp.load_state_dict(model.model.layers[0].mlp.state_dict())
    return Reference(model, {**case.keys, "model_type": "llama"})


def _qwen(case: Case) -> Reference:
    """Qwen 1 is Qwen 2 without grouped heads, its tensors fused and named otherwise."""
    keys = case.keys
    model = transformers_model(
        "qwen2",
        {
            **{k: keys[k] for k in ("vocab_size", "hidden_size", "num_hidden_layers")},
            "num_attention_heads": keys["num_attention_heads"],
            "num_key_value_heads": keys["num_attention_heads"],
            "intermediate_size": keys["intermediate_size"] // 2,
            "max_position_embeddings": keys["seq_length"],
            "tie_word_embeddings": False,
        },
    )

    def published(tensors: Tensors) -> Tensors:
        found = {}
        for name, tensor in tensors.items():
            if ".q_proj." in name:
                parts = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                name, tensor = name.replace("self_attn.q_proj", "attn.c_attn"), torch.cat(parts)
            elif "k_proj" in name or "v_proj" in name:
                continue
            for ours, theirs in _QWEN:
                name = name.replace(ours, theirs)
            found[name] = tensor
        return found

    return Reference(model, {**keys, "model_type": "qwen"}, published)


def _llava(case: Case) -> Reference:
    """The text half of LLaVA is a Llama under a prefix, beside tensors that are not ours."""
    model = transformers_model("llama", case.keys)

    def published(tensors: Tensors) -> Tensors:
        text = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
        return text | {"vision_tower.vision_model.post_layernorm.weight": torch.ones(8)}

    config = {
        "model_type": "llava",
        "text_config": {**case.keys, "model_type": "llama"},
        "vision_config": {"model_type": "clip_vision_model"},
        "image_token_index": 300,
    }
    return Reference(model, config, published)


class _OpenElm(nn.Module):
    """OpenELM in its own names; every block has its own sizes."""

    def __init__(self, keys: dict[str, Any], sizes: list[int]) -> None:
        super().__init__()
        self.keys = keys
        hidden, dim = keys["model_dim"], keys["head_dim"]
        self.transformer = nn.Module()
        self.transformer.token_embeddings = nn.Embedding(keys["vocab_size"], hidden)
        self.transformer.norm = nn.RMSNorm(hidden, 1e-6)
        self.transformer.layers = nn.ModuleList()
        for heads, kv, size in zip(
            keys["num_query_heads"], keys["num_kv_heads"], sizes, strict=True
        ):
            layer, attn, ffn = nn.Module(), nn.Module(), nn.Module()
            layer.attn_norm, layer.ffn_norm = nn.RMSNorm(hidden, 1e-6), nn.RMSNorm(hidden, 1e-6)
            attn.qkv_proj = nn.Linear(hidden, (heads + 2 * kv) * dim, bias=False)
            attn.q_norm, attn.k_norm = nn.RMSNorm(dim, 1e-6), nn.RMSNorm(dim, 1e-6)
            attn.out_proj = nn.Linear(heads * dim, hidden, bias=False)
            ffn.proj_1 = nn.Linear(hidden, 2 * size, bias=False)
            ffn.proj_2 = nn.Linear(size, hidden, bias=False)
            layer.attn, layer.ffn = attn, ffn
            self.transformer.layers.append(layer)

    def forward(self, ids: torch.Tensor, use_cache: bool = False) -> SimpleNamespace:
        """Return the logits of every token."""
        x = self.transformer.token_embeddings(ids)
        counts = zip(self.keys["num_query_heads"], self.keys["num_kv_heads"], strict=True)
        for layer, (heads, kv) in zip(self.transformer.layers, counts, strict=True):
            x = x + self._attend(layer.attn, layer.attn_norm(x), heads, kv)
            gate, up = layer.ffn.proj_1(layer.ffn_norm(x)).chunk(2, dim=-1)
            x = x + layer.ffn.proj_2(functional.silu(gate) * up)
        x = self.transformer.norm(x)
        return SimpleNamespace(logits=x @ self.transformer.token_embeddings.weight.T)

    def _attend(self, attn: Any, x: torch.Tensor, heads: int, kv: int) -> torch.Tensor:
        length, dim = x.shape[1], self.keys["head_dim"]
        fused = attn.qkv_proj(x).view(1, length, heads + 2 * kv, dim).transpose(1, 2)
        q, k, v = fused.split([heads, kv, kv], dim=1)
        q, k = (_rotate(norm(part)) for norm, part in ((attn.q_norm, q), (attn.k_norm, k)))
        k, v = (part.repeat_interleave(heads // kv, dim=1) for part in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return attn.out_proj(mixed.transpose(1, 2).reshape(1, length, heads * dim))


def _rotate(x: torch.Tensor) -> torch.Tensor:
    length, dim = x.shape[-2:]
    angles = torch.outer(
        torch.arange(length).float(), 10_000.0 ** (-torch.arange(0, dim, 2).float() / dim)
    )
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _openelm(case: Case) -> Reference:
    torch.manual_seed(0)
    model = _OpenElm(case.keys, [96, 160]).eval()
    randomise(model)
    return Reference(model, {**case.keys, "model_type": "openelm"})


class _OpenLm(nn.Module):
    """OpenLM with layer norms that have a gain only, in its own names."""

    def __init__(self, keys: dict[str, Any]) -> None:
        super().__init__()
        hidden, self.heads = keys["hidden_dim"], keys["n_heads"]
        size = -(-int(8 * hidden / 3) // 256) * 256
        self.model = nn.Module()
        self.model.tok_embeddings = nn.Embedding(keys["vocab_size"], hidden)
        self.model.norm = _gain_only(hidden)
        self.model.output = nn.Linear(hidden, keys["vocab_size"], bias=False)
        self.model.layers = nn.ModuleList()
        for _ in range(keys["n_layers"]):
            layer, attention, ffn = nn.Module(), nn.Module(), nn.Module()
            layer.attention_norm, layer.ffn_norm = _gain_only(hidden), _gain_only(hidden)
            attention.in_proj = nn.Linear(hidden, 3 * hidden, bias=False)
            attention.out_proj = nn.Linear(hidden, hidden, bias=False)
            attention.q_norm, attention.k_norm = _gain_only(hidden), _gain_only(hidden)
            ffn.w12 = nn.Linear(hidden, 2 * size, bias=False)
            ffn.w3 = nn.Linear(size, hidden, bias=False)
            layer.attention, layer.feed_forward = attention, ffn
            self.model.layers.append(layer)

    def forward(self, ids: torch.Tensor, use_cache: bool = False) -> SimpleNamespace:
        """Return the logits of every token."""
        x = self.model.tok_embeddings(ids)
        for layer in self.model.layers:
            x = x + self._attend(layer.attention, layer.attention_norm(x))
            gate, up = layer.feed_forward.w12(layer.ffn_norm(x)).chunk(2, dim=-1)
            x = x + layer.feed_forward.w3(functional.silu(gate) * up)
        return SimpleNamespace(logits=self.model.output(self.model.norm(x)))

    def _attend(self, attention: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = attention.in_proj(x).chunk(3, dim=-1)
        parts = (attention.q_norm(q), attention.k_norm(k), v)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(_rotate(q), _rotate(k), v, is_causal=True)
        return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def _gain_only(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, 1e-5, bias=False)


def _openlm(case: Case) -> Reference:
    torch.manual_seed(0)
    model = _OpenLm(case.keys["params_args_dict"]).eval()
    randomise(model)
    return Reference(model, {**case.keys, "model_type": "openlm"})


# by the name of the case, or its model_type
WRITTEN: dict[str, Callable[[Case], Reference]] = {
    "minicpm": _minicpm,
    "mobillama": _mobillama,
    "mobilellm": _mobilellm,
    "qwen": _qwen,
    "llava": _llava,
    "openelm": _openelm,
    "openlm": _openlm,
}
