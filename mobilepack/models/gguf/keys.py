"""The metadata of one architecture, read like a config: typed, and with every problem at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mobilepack.models.config import ConfigReader, Json
from mobilepack.models.weight_file import TensorInfo

_HARMLESS = re.compile(
    r"vocab_size|tensor_data_layout|attention\.(causal|key_length|head_count_kv)"
    r"|rope\.(scaling\.(finetuned|type|original_context_length)|dimension_(count|sections)|freq_base)"
    r"|expert_(count|used_count|feed_forward_length)"
)
"""Keys that say what the family takes for granted, or that are checked where they matter."""

_ZERO_IS_NONE = (".sliding_window", ".expert_count", ".expert_used_count", "softcapping")
"""How keys end whose zero says the same as their absence."""


class Keys:
    """Typed reading of the keys that begin with the architecture's name."""

    def __init__(
        self,
        architecture: str,
        metadata: Mapping[str, Json],
        tensors: Mapping[str, TensorInfo],
        factors: Mapping[str, Sequence[float]],
        file: str,
    ) -> None:
        """Take what belongs to an architecture.

        Args:
            architecture: Its name.
            metadata: Everything that the file says.
            tensors: Every tensor of the file.
            factors: Divisors of the rotary frequencies by the name of their tensor.
            file: How messages call it.
        """
        prefix = f"{architecture}."
        own = {
            key.removeprefix(prefix): _single(value)
            for key, value in metadata.items()
            if key.startswith(prefix) and not (value == 0 and key.endswith(_ZERO_IS_NONE))
        }
        self._tensors = tensors
        self._factors = factors
        self._reader = ConfigReader(own, file, prefix)
        self.problem = self._reader.problem
        self.fixed = self._reader.fixed
        self.integer = self._reader.integer
        self.number = self._reader.number
        self.flag = self._reader.flag

    def finish(self) -> None:
        """Raise one UsageError with every problem and every key that nothing has read."""
        self._reader.fixed("attention.causal", True)
        self._reader.fixed("attention.value_length", self.head_dim())
        self._reader.fixed("expert_gating_func", 1)  # softmax
        self._reader.finish(_HARMLESS)

    def has_tensor(self, part: str) -> bool:
        """Tell whether the first block has a tensor."""
        return f"blk.0.{part}" in self._tensors

    def optional(self, key: str) -> float | None:
        """Return a number that may be absent or zero, which is the same."""
        return self.number(key) if self._reader.get(key) else None

    def window(self) -> int | None:
        """Return the sliding window; absent or zero means none."""
        return self.integer("attention.sliding_window", 0, minimum=0) or None

    def kv_heads(self) -> int:
        """Return the number of key-value heads; absent means as many as queries."""
        return self.integer("attention.head_count_kv", self.integer("attention.head_count"))

    def head_dim(self) -> int:
        """Return the channels per head; absent means that the hidden size is shared out."""
        return self.integer("attention.key_length", self.shared_head_dim())

    def shared_head_dim(self) -> int:
        """Return the channels per head if the hidden size is shared out."""
        return max(1, self.integer("embedding_length") // self.integer("attention.head_count"))

    def rope_scaling(self) -> dict[str, Json]:
        """Return `rope_scaling` as a config spells it, nothing where positions are not scaled."""
        if scaling := self._factor_scaling():
            return {"rope_scaling": scaling}
        kinds = ("none", "linear", "yarn", "longrope")
        kind = self._reader.choice("rope.scaling.type", kinds, "linear")
        factor = self.number("rope.scaling.factor", self.number("rope.scale_linear", 1.0))
        if kind == "none" or factor == 1.0:
            return {}
        if kind == "longrope":
            self.problem("rope.scaling.type", "is longrope, but there are no factors")
        scaling = {"rope_type": kind, "factor": factor}
        if kind == "yarn":
            scaling |= self._yarn()
        return {"rope_scaling": scaling}

    def _yarn(self) -> dict[str, Json]:
        names = {
            "attention_factor": "attn_factor",
            "beta_fast": "yarn_beta_fast",
            "beta_slow": "yarn_beta_slow",
        }
        found: dict[str, Json] = {
            name: self.number(f"rope.scaling.{key}")
            for name, key in names.items()
            if self._reader.has(f"rope.scaling.{key}")
        }
        length = self.integer("rope.scaling.original_context_length")
        return found | {"original_max_position_embeddings": length}

    def _factor_scaling(self) -> dict[str, Json]:
        """Return longrope with the divisors that the file has as tensors.

        Llama 3's are one list for all lengths, which longrope with equal lists is.
        """
        trained = self.integer("context_length")
        one = self._factors.get("rope_freqs.weight")
        if one is not None:
            if all(factor == 1.0 for factor in one):
                return {}
            short = long = list[Json](one)
        elif "rope_factors_short.weight" in self._factors:
            short = list[Json](self._factors["rope_factors_short.weight"])
            long = list[Json](self._factors.get("rope_factors_long.weight", ()))
            trained = self.integer("rope.scaling.original_context_length", trained)
        else:
            return {}
        return {
            "rope_type": "longrope",
            "short_factor": short,
            "long_factor": long,
            "attention_factor": self.number("rope.scaling.attn_factor", 1.0),
            "original_max_position_embeddings": trained,
        }


FACTORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
"""Tensors that are part of the rotation's description, not of the decoder."""


def _single(value: Json) -> Json:
    """Return the one value of a list that says the same of every block."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return value[0]
    return value
