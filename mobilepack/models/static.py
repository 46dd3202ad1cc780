"""The decoder's static form: fixed lengths, keys and values as inputs and outputs, for NPUs.

The same blocks and parameters as the dynamic form (`decoder.py`), other large steps
(`operators_static.py`). `prefill` and `decode` are two modules that share their weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from mobilepack.models.blocks import Linear
from mobilepack.models.decoder import Decoder
from mobilepack.models.layer_spec import AttentionSpec
from mobilepack.models.operators_static import STATIC, Heads, StaticCall
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.tables import make_tables

METHODS = ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class StaticShape:
    """Lengths and layout of one method.

    Attributes:
        tokens: T, tokens of one call.
        max_seq_len: Positions that the position tables hold.
        past: Positions that the cache holds.
        linear: Linear maps as such, or as convolutions with a kernel of one, which NPUs run faster.
        heads: How attention is written.
        every: Logits of every token, [T, vocabulary], instead of the last one's.
    """

    tokens: int
    max_seq_len: int
    past: int
    linear: Literal["linear", "convolution"] = "convolution"
    heads: Heads = "together"
    every: bool = False


@dataclass(frozen=True, slots=True)
class _Cached:
    k_cache: torch.Tensor
    v_cache: torch.Tensor


class Convolution(nn.Module):
    """A linear map as a convolution over `[1, channels, 1, T]`."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.weight = nn.Parameter(weight.view(*weight.shape, 1, 1), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[1, 1, T, inputs]` to `[1, 1, T, outputs]`."""
        mapped = nn.functional.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias)
        return mapped.permute(0, 2, 3, 1)


class StaticDecoder(Decoder):
    """A decoder for calls of one length."""

    def __init__(self, spec: DecoderSpec, shape: StaticShape) -> None:
        """Create the modules on the current default device; see `Decoder`."""
        super().__init__(spec, shape.max_seq_len, STATIC)
        self.caches = nn.ModuleList()
        self.shape = shape
        self.windows = windows_of(spec)

    def forward(  # type: ignore[override]
        self, tokens: torch.Tensor, positions: torch.Tensor, *rest: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return the last token's logits and every layer's new keys and values.

        Args:
            tokens: int32 [1, T].
            positions: int32 [1, T].
            rest: A mask for each of `windows`, then keys and values of each layer; shapes as in
                `contract.manifest.StaticForm`.
        """
        count = len(self.windows)
        masks = dict(zip(self.windows, rest[:count], strict=True))
        call = StaticCall(positions.view(-1), masks, self.shape.heads)
        x = self._embedded(tokens.unsqueeze(1), call)
        for index, layer in enumerate(self.spec.layers):
            block = self.layers[str(index if layer.shares is None else layer.shares)]
            at = count + 2 * index
            state = cast(nn.Module, _Cached(rest[at], rest[at + 1]))
            x = block(x, state, self.tables, call, index == len(self.spec.layers) - 1)
        logits = self._logits(x).view(-1, self.spec.vocab_size)
        new = [t for pair in zip(call.keys, call.values, strict=True) for t in pair]
        return (logits, *new)

    def _headed(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last token.

        It is taken here and not in the last layer, because the HTP (QNN 2.49.40) computes wrong
        results when an attention's 16-bit result is cut to one token (cosine -0.86 against the
        fake-quantised graph, 1.0 so; its emulator shows it).
        """
        return x[:, :, -1:] if x.shape[2] > 1 and not self.shape.every else x

    def example(self, mask_value: float) -> tuple[torch.Tensor, ...]:
        """Return inputs of the right shapes: a first call."""
        shape, kinds = self.shape, cast(Any, self.spec.attentions)
        ids = torch.zeros(1, shape.tokens, dtype=torch.int32)
        at = torch.arange(shape.tokens, dtype=torch.int32).view(1, -1)
        mask = torch.full((1, 1, shape.tokens, shape.past + shape.tokens), mask_value)
        inputs = [ids, at, *(mask.clone() for _ in self.windows)]
        for kind in kinds:
            inputs.append(torch.zeros(1, kind.n_kv_heads, kind.head_dim, shape.past))
            inputs.append(torch.zeros(1, kind.n_kv_heads, shape.past, kind.head_dim))
        return tuple(inputs)


def windows_of(spec: DecoderSpec) -> tuple[int, ...]:
    """Return the different sliding windows, 0 for full attention, in the order of first use."""
    mixers = (cast(AttentionSpec, mixer) for mixer in spec.attentions)
    return tuple(dict.fromkeys(mixer.window or 0 for mixer in mixers))


def input_names(spec: DecoderSpec) -> tuple[str, ...]:
    """Return the names of a method's inputs in order."""
    masks = [f"mask_{window}" if window else "mask" for window in windows_of(spec)]
    return ("tokens", "positions", *masks, *cache_names(spec))


def cache_names(spec: DecoderSpec) -> tuple[str, ...]:
    """Return the names of keys and values, as inputs and as outputs."""
    return tuple(f"{kind}_{index}" for index in range(len(spec.layers)) for kind in "kv")


def static_decoder(
    spec: DecoderSpec, shape: StaticShape, weights: Mapping[str, torch.Tensor]
) -> StaticDecoder:
    """Return the static form in float32 on the CPU.

    Args:
        spec: A model whose blocks are attention and feed-forward (`DecoderSpec.is_plain`).
        shape: Lengths and layout.
        weights: Every name of `parameter_shapes(spec)`; tensors are taken, not copied.
    """
    if not spec.is_plain:
        raise ValueError("the static form has attention and feed-forward only")
    with torch.device("meta"):
        decoder = StaticDecoder(spec, shape)
    decoder = decoder.to_empty(device="cpu")
    decoder.load_state_dict(dict(weights), strict=True, assign=True)
    tables = make_tables(spec, shape.max_seq_len)
    for name, buffer in decoder.named_buffers():
        buffer.copy_(tables[name])
    if shape.linear == "convolution":
        _convolve(decoder)
    return decoder.requires_grad_(False).eval()


def _convolve(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, Linear) and name != "positions":  # that is a table
            setattr(module, name, Convolution(child))
        else:
            _convolve(child)
