"""What is done to a model's weights before they are lowered."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobilepack.contract.base import Contract

Calibration = Literal["gptq", "awq", "hqq"]


class Sparsity(Contract):
    """Weights set to zero by Wanda.

    Attributes:
        share: Share of each output row's weights, or `zeros / of` in the N:M form.
        zeros: Zeros among `of` neighbouring weights; 0 for unstructured.
        of: See `zeros`.
    """

    share: float = Field(gt=0, lt=1)
    zeros: int = Field(ge=0, default=0)
    of: int = Field(ge=0, default=0)


class Compression(Contract):
    """What was asked for; part of the build plan, so another wish is another package.

    Attributes:
        vocabulary_sha256: Text whose tokens are kept; None keeps all.
        dropped_layers: Decoder blocks left out, by their number in the checkpoint.
        width: Share of heads and feed-forward channels left out.
        sparsity: Weights set to zero.
        calibration: How 4-bit weights are chosen; None rounds to nearest.
        text_sha256: Text that calibration, Wanda and width pruning look at; None where none does.
    """

    vocabulary_sha256: str | None = None
    dropped_layers: tuple[int, ...] = ()
    width: float = Field(ge=0, lt=1, default=0.0)
    sparsity: Sparsity | None = None
    calibration: Calibration | None = None
    text_sha256: str | None = None

    @property
    def changes_shapes(self) -> bool:
        """Whether the decoder has other sizes than the checkpoint."""
        return bool(self.vocabulary_sha256 or self.dropped_layers or self.width)


class CompressionReport(Contract):
    """What was done.

    Attributes:
        parameters_before: Numbers of the checkpoint; shared ones count once.
        tokens_before: Vocabulary of the checkpoint.
        tokens: Vocabulary of the package.
        layers_before: Decoder blocks of the checkpoint.
        layers: Decoder blocks of the package.
        kept_kv_heads: Key and value heads kept of each block, by number; empty if all are.
        kept_ffn_channels: Feed-forward channels kept of each block, how many; empty if all are.
        zero_share: Share of the linear maps' weights that are exactly zero.
        text_tokens: Tokens of text looked at.
    """

    parameters_before: int
    tokens_before: int
    tokens: int
    layers_before: int
    layers: int
    kept_kv_heads: tuple[tuple[int, ...], ...] = ()
    kept_ffn_channels: tuple[int, ...] = ()
    zero_share: float = 0.0
    text_tokens: int = 0
