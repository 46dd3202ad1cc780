"""The one decoder, in its dynamic form: any sequence length, KV cache in mutable buffers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mobilepack.models.blocks import STATES, Layer, Linear, Tables, add_modules, normalise
from mobilepack.models.layer_spec import NormSpec
from mobilepack.models.operators import COMPOSITE, Operators, Position
from mobilepack.models.spec import DecoderSpec, parameter_shapes
from mobilepack.models.tables import make_tables


class Embedding(nn.Module):
    """A table of token vectors, `[vocab, hidden]`."""

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        weight = torch.empty(rows, channels)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map ids `[1, seq]` to vectors `[1, seq, hidden]`."""
        return nn.functional.embedding(tokens, self.weight)


class Decoder(nn.Module):
    """A decoder-only language model that returns the last token's logits."""

    def __init__(self, spec: DecoderSpec, max_seq_len: int, ops: Operators = COMPOSITE) -> None:
        """Create the modules on the current default device (`meta` costs no memory).

        Args:
            spec: The model.
            max_seq_len: Positions the KV cache and the rotary tables hold.
            ops: How the large steps are written.
        """
        super().__init__()
        self.ops = ops
        self.spec = spec
        self.max_seq_len = max_seq_len
        self.embed = Embedding(spec.vocab_size, spec.table_size)
        own = {name: s for name, s in parameter_shapes(spec).items() if _is_own(name)}
        add_modules(self, own)
        self.tables = Tables(spec, max_seq_len)
        self.layers = nn.ModuleDict(
            {
                str(index): Layer(layer, spec.hidden_size, ops)
                for index, layer in enumerate(spec.layers)
                if layer.shares is None
            }
        )
        self.caches = nn.ModuleList(
            STATES[type(layer.mixer)](layer.mixer, max_seq_len) for layer in spec.layers
        )
        self.requires_grad_(False)

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        """Return the next token's logits.

        Args:
            tokens: int64 `[1, seq]`, seq >= 1.
            input_pos: int64 `[1]`, position of the first token; 0 starts a new sequence.

        Returns:
            float32 `[1, vocab]`, logits after the last token.
        """
        position = self.ops.position(input_pos, tokens.shape[1], self.max_seq_len)
        x = self._embedded(tokens, position)
        for index, layer in enumerate(self.spec.layers):
            block = self.layers[str(index if layer.shares is None else layer.shares)]
            last = index == len(self.spec.layers) - 1
            x = block(x, self.caches[index], self.tables, position, last)
        return self._logits(x)

    def _embedded(self, tokens: torch.Tensor, position: Position) -> torch.Tensor:
        spec = self.spec
        x: torch.Tensor = self.embed(tokens)
        if spec.embed_scale != 1.0:
            x = x * spec.embed_scale
        if spec.table_size != spec.hidden_size:
            x = self._linear("project_in", x)
        if spec.positions is not None:
            table = getattr(self, "positions").weight  # noqa: B009  added by its shape
            x = x + self.ops.positions(x, table, position, spec.positions.offset)
        return self._norm("embed_norm", spec.embed_norm, x)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        spec = self.spec
        x = self._headed(self._norm("norm", spec.norm, x))
        if spec.table_size != spec.hidden_size:
            x = self._linear("project_out", x)
        logits = self._linear("head", x)
        if spec.logit_softcap is not None:
            logits = torch.tanh(logits * (1 / spec.logit_softcap)) * spec.logit_softcap
        return logits

    def _headed(self, x: torch.Tensor) -> torch.Tensor:
        """Return what goes to the head; the layers have left the last token only."""
        return x

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        module: Linear = getattr(self, name)
        mapped: torch.Tensor = module(x)
        return mapped

    def _norm(self, name: str, norm: NormSpec | None, x: torch.Tensor) -> torch.Tensor:
        if norm is None:
            return x
        module = getattr(self, name, None)
        vectors = (None, None) if module is None else (module.weight, module.bias)
        return normalise(self.ops, norm, x, *vectors)


def _is_own(name: str) -> bool:
    """Tell whether a parameter is the decoder's own, neither a block's nor the embedding's."""
    return not name.startswith(("layers.", "embed."))


def weightless(spec: DecoderSpec, max_seq_len: int, ops: Operators = COMPOSITE) -> Decoder:
    """Return the decoder on the meta device: shapes and names, no memory."""
    with torch.device("meta"):
        return Decoder(spec, max_seq_len, ops).eval()


def with_weights(
    spec: DecoderSpec,
    max_seq_len: int,
    weights: Mapping[str, torch.Tensor],
    ops: Operators = COMPOSITE,
) -> Decoder:
    """Return the decoder in float32 on the CPU, ready to run.

    Args:
        spec: The model.
        max_seq_len: Positions the KV cache holds.
        weights: Every name of `parameter_shapes(spec)`; tensors are taken, not copied.
        ops: How the large steps are written.
    """
    decoder = weightless(spec, max_seq_len, ops).to_empty(device="cpu")
    decoder.load_state_dict(dict(weights), strict=True, assign=True)
    tables = make_tables(spec, max_seq_len)
    for name, buffer in decoder.named_buffers():
        if name in tables:
            buffer.copy_(tables[name])
        else:
            buffer.zero_()
    return decoder.requires_grad_(False).eval()
