"""What families with mixtures of experts have in common: config keys, and where experts lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mobilepack.models.config import ConfigReader, show
from mobilepack.models.families.llama_like import LLAMA_NAMES
from mobilepack.models.families.names import At
from mobilepack.models.layer_spec import FeedForwardSpec, LayerSpec
from mobilepack.models.moe_spec import MoeSpec, Weighting

Names = Mapping[str, str | At]


def expert_names(router: str, expert: str, maps: tuple[str, str, str]) -> Names:
    """Return Llama's names with a tensor of its own for every expert's every map.

    Args:
        router: Key of the router, with `{i}` for the block.
        expert: What an expert's keys begin with, with `{i}` and `{expert}`.
        maps: What follows for gate, up and down.
    """
    names = {
        f"experts_{name}": f"{expert}.{key}"
        for name, key in zip(("gate", "up", "down"), maps, strict=True)
    }
    return {**LLAMA_NAMES, "router": router, **names}


QWEN_MOE_NAMES = expert_names(
    "model.layers.{i}.mlp.gate",
    "model.layers.{i}.mlp.experts.{expert}",
    ("gate_proj", "up_proj", "down_proj"),
)
MIXTRAL_NAMES = expert_names(
    "model.layers.{i}.block_sparse_moe.gate",
    "model.layers.{i}.block_sparse_moe.experts.{expert}",
    ("w1", "w3", "w2"),
)


def read_experts(
    reader: ConfigReader, block: LayerSpec, key: str, defaults: tuple[int, int]
) -> MoeSpec:
    """Read how many experts there are (`key`) and how many a token goes through.

    Their size and activation are those of the block's feed-forward.
    """
    assert isinstance(block.ffn, FeedForwardSpec)  # noqa: S101 (for the type checker)
    if key == "num_experts":
        reader.alias(num_experts="num_local_experts")  # as transformers 5 saves Qwen3-MoE
    experts = reader.integer(key, defaults[0])
    count = reader.integer("num_experts_per_tok", defaults[1])
    if count > experts:
        reader.problem("num_experts_per_tok", f"is {count}, but {key} is {experts}")
    return MoeSpec(experts, min(count, experts), block.ffn.size, block.ffn.activation)


def normalised(reader: ConfigReader) -> Weighting:
    """Read whether the chosen experts' weights are divided by their sum."""
    return "softmax_chosen" if reader.flag("norm_topk_prob", False) else "softmax"


def with_experts(
    reader: ConfigReader, layers: tuple[LayerSpec, ...], moe: MoeSpec
) -> tuple[LayerSpec, ...]:
    """Give blocks their experts as Qwen's configs choose them.

    transformers 5.23 modeling_qwen3_moe.py: every `decoder_sparse_step`-th block, counted from 1,
    except those of `mlp_only_layers`.
    """
    step = reader.integer("decoder_sparse_step", 1)
    plain = reader.get("mlp_only_layers") or []
    if not isinstance(plain, list) or not all(
        isinstance(index, int) and 0 <= index < len(layers) for index in plain
    ):
        reader.problem("mlp_only_layers", f"is {show(plain)}; a list of blocks is needed")
        plain = []
    sparse = {i for i in range(len(layers)) if (i + 1) % step == 0} - set(plain)
    return tuple(
        replace(layer, ffn=moe) if index in sparse else layer for index, layer in enumerate(layers)
    )
