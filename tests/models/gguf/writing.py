"""Write a Hugging Face checkpoint as llama.cpp's converter does, with the gguf package.

Names are those of the package's own tables. Every change that the converter makes to a matrix moves
whole rows, and blocks run along rows: so rows are quantised first, put back into a second
checkpoint as float32 (what a reference computes with), and their bytes are moved.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.models.gguf.quantisers import dequantised, quantised

Array = np.ndarray
Config = dict[str, Any]
Move = Callable[[str, Array, Config], Array]

_EXPERT = re.compile(r"model\.layers\.(\d+)\.\w+\.experts\.(\d+)\.(\w+)\.weight")
_EXPERTS = {"w1": "gate", "w3": "up", "w2": "down"}
_EXPERTS |= {f"{name}_proj": name for name in ("gate", "up", "down")}
_HEAD_NORM = re.compile(r"model\.layers\.(\d+)\.self_attn\.([qk])_layernorm\.norms\.(\d+)\.weight")


@dataclass(frozen=True, slots=True)
class Written:
    """A model in both formats, with equal numbers.

    Attributes:
        gguf: The file.
        folder: The checkpoint.
    """

    gguf: Path
    folder: Path


def type_of(name: str, kinds: str) -> str:
    """Return the type of a matrix: one for all, or the mixture that is called Q4_K_M."""
    if kinds != "Q4_K_M":
        return kinds
    better = ("v_proj", "down_proj", "embed_tokens", "lm_head")
    return "Q6_K" if any(part in name for part in better) else "Q4_K"


def write(
    source: Path,
    out: Path,
    arch: str,
    kinds: str,
    move: Move,
    more: Config | None = None,
) -> Written:
    """Quantise a checkpoint's matrices and write them twice.

    Args:
        source: The checkpoint.
        out: A folder for the results.
        arch: What llama.cpp calls the architecture.
        kinds: See `type_of`.
        move: What the converter does to rows or numbers of a tensor, given its name.
        more: Further metadata, such as the vocabulary.
    """
    config = json.loads((source / "config.json").read_text())
    tensors = {k: v.float().numpy() for k, v in load_file(source / "model.safetensors").items()}
    folder = out / "rounded"
    folder.mkdir(parents=True)
    writer = gguf.GGUFWriter(out / "model.gguf", arch)
    for key, value in {**metadata(config, arch), **(more or {})}.items():
        _add(writer, key, value)
    rounded = {}
    for name, group in _grouped(tensors, arch, config).items():
        rounded |= _write(writer, name, group, kinds, move, config)
    for name, factors in rope_factors(config).items():
        writer.add_tensor(name, np.array(factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file({k: torch.from_numpy(v) for k, v in rounded.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return Written(out / "model.gguf", folder)


def _grouped(
    tensors: dict[str, Array], arch: str, config: Config
) -> dict[str, list[tuple[str, Array]]]:
    """Return tensors by the name of the one that they are written as."""
    code = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    known = gguf.get_tensor_name_map(code, layers)
    groups: dict[str, list[tuple[str, Array]]] = {}
    for full, tensor in tensors.items():
        name = full
        if full == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        if match := _EXPERT.fullmatch(name):
            target = f"blk.{match[1]}.ffn_{_EXPERTS[match[3]]}_exps.weight"
        elif match := _HEAD_NORM.fullmatch(name):
            target = f"blk.{match[1]}.attn_{match[2]}_norm.weight"
        elif name.endswith("input_linear.weight"):  # granitemoe
            target = f"blk.{name.split('.')[2]}.ffn_gate_up_exps.weight"
        else:
            name = full.removeprefix("transformer.") if arch == "bloom" else full
            found = known.get_name(name, try_suffixes=(".weight", ".bias"))
            assert found is not None, name
            target = found
        groups.setdefault(target, []).append((full, tensor))
    order = re.compile(r"\d+")
    return {
        target: sorted(group, key=lambda item: [int(n) for n in order.findall(item[0])])
        for target, group in groups.items()
    }


def _write(
    writer: gguf.GGUFWriter,
    target: str,
    group: list[tuple[str, Array]],
    kinds: str,
    move: Move,
    config: Config,
) -> dict[str, Array]:
    """Write one tensor; return the tensors of the checkpoint that it holds, rounded."""
    rounded, parts = {}, []
    for name, tensor in group:
        turned = "transposed" in move.__name__ and tensor.ndim == 2 and ".wte" not in name
        turned = turned and ".wpe" not in name
        rows = np.ascontiguousarray(tensor.T if turned else tensor)
        kind = type_of(name, kinds) if rows.ndim > 1 and "wpe" not in name else "F32"
        flat = rows.reshape(-1, rows.shape[-1])
        raw = quantised(flat, kind) if rows.ndim > 1 else flat.reshape(rows.shape)
        if rows.ndim > 1:
            numbers = dequantised(raw, kind).reshape(rows.shape)
            rounded[name] = np.ascontiguousarray(numbers.T if turned else numbers)
        else:
            rounded[name] = tensor
        parts.append(move(name, raw, config))
    _emit(writer, target, group, parts, kind)
    return rounded


def _emit(
    writer: gguf.GGUFWriter,
    target: str,
    group: list[tuple[str, Array]],
    parts: list[Array],
    kind: str,
) -> None:
    plain = kind in ("F32",)
    whole = np.stack(parts) if len(parts) > 1 else parts[0]
    if group[0][1].ndim == 3:  # granitemoe: experts lie in one tensor already
        whole = whole.reshape(group[0][1].shape[0], -1, whole.shape[-1])
        if "input_linear" in group[0][0]:
            block = target.split(".")[1]
            half = whole.shape[1] // 2
            for name, part in (("gate", whole[:, :half]), ("up", whole[:, half:])):
                _tensor(writer, f"blk.{block}.ffn_{name}_exps.weight", part, kind, plain)
            return
    _tensor(writer, target, whole, kind, plain)


def _tensor(writer: gguf.GGUFWriter, name: str, whole: Array, kind: str, plain: bool) -> None:
    whole = np.ascontiguousarray(whole)
    if plain:
        writer.add_tensor(name, whole.view(np.float32))
        return
    writer.add_tensor(name, whole, raw_dtype=gguf.GGMLQuantizationType[kind])


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def metadata(config: Config, arch: str) -> dict[str, Any]:
    """Return the keys that llama.cpp's converter writes (conversion/base.py and its children)."""

    def first(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    hidden, heads = first("hidden_size", "n_embd"), first("num_attention_heads", "n_head")
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    head = config.get("head_dim") or hidden // heads
    share = rope.get("partial_rotary_factor")
    kv_heads = 1 if arch == "starcoder" else first("num_key_value_heads", "num_kv_heads")
    depth = first("num_hidden_layers", "n_layer")
    ffn = first("intermediate_size", "n_inner", "ffn_hidden_size")
    keys = {
        "block_count": depth,
        "context_length": first("max_position_embeddings", "n_positions", "seq_length") or hidden,
        "embedding_length": hidden,
        "feed_forward_length": ffn or 4 * hidden,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": config.get("head_dim"),
        "attention.value_length": config.get("head_dim"),
        "attention.layer_norm_rms_epsilon": config.get("rms_norm_eps"),
        "attention.layer_norm_epsilon": first(
            "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"
        ),
        "attention.sliding_window": config.get("sliding_window"),
        "attention.scale": config.get("attention_multiplier"),
        "attention.clamp_kqv": config.get("clip_qkv"),
        "attn_logit_softcapping": config.get("attn_logit_softcapping"),
        "final_logit_softcapping": config.get("final_logit_softcapping"),
        "embedding_scale": config.get("embedding_multiplier"),
        "residual_scale": config.get("residual_multiplier"),
        "logit_scale": first("logits_scaling", "logit_scale"),
        "use_parallel_residual": config.get("use_parallel_residual"),
        "rope.freq_base": rope.get("rope_theta"),
        "rope.dimension_count": None if share is None else int(share * head),
        "expert_count": first("num_local_experts", "num_experts"),
        "expert_used_count": config.get("num_experts_per_tok"),
        "expert_feed_forward_length": config.get("moe_intermediate_size"),
        "expert_shared_feed_forward_length": config.get("shared_expert_intermediate_size"),
    }
    if arch == "olmo":
        keys["attention.layer_norm_epsilon"] = 1e-5
    keys |= _rope_scaling(config, rope)
    named = {f"{arch}.{key}": value for key, value in keys.items() if value is not None}
    return named | {"general.name": "test", "general.license": "apache-2.0"}


def _rope_scaling(config: Config, rope: Config) -> dict[str, Any]:
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        found = {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
        if kind == "yarn":
            length = rope["original_max_position_embeddings"]
            found["rope.scaling.original_context_length"] = length
        return found
    if kind != "longrope":
        return {}
    trained, longest = (
        rope["original_max_position_embeddings"],
        config["max_position_embeddings"],
    )
    scale = longest / trained
    factor = math.sqrt(1 + math.log(scale) / math.log(trained)) if scale > 1 else 1.0
    return {
        "rope.scaling.type": "longrope",
        "rope.scaling.original_context_length": trained,
        "rope.scaling.attn_factor": factor,
    }


def rope_factors(config: Config) -> dict[str, list[float]]:
    """Return the divisors of the rotary frequencies that the converter writes as tensors."""
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "longrope":
        return {f"rope_factors_{k}.weight": rope[f"{k}_factor"] for k in ("short", "long")}
    if rope.get("rope_type") != "llama3":
        return {}
    # Llama 3's rule, from its wavelengths (arXiv 2407.21783; llama-models apply_scaling).
    head = config["head_dim"] or config["hidden_size"] // config["num_attention_heads"]
    low, high, factor = (rope[k] for k in ("low_freq_factor", "high_freq_factor", "factor"))
    length, factors = rope["original_max_position_embeddings"], []
    for pair in range(0, head, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (pair / head)
        smooth = min(max((length / wave - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return {"rope_freqs.weight": factors}
