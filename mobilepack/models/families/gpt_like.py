"""Parts that the families around GPT-2 share: their config keys and kinds of blocks."""

from __future__ import annotations

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.reading import (
    Defaults,
    bos_id,
    eos_ids,
    read_activation,
    whole_share,
)
from mobilepack.models.layer_spec import FeedForwardSpec, LayerSpec, NormSpec
from mobilepack.models.spec import DecoderSpec

PREFIXED = (("transformer.", ""),)
"""A file saved from the bare model has no such prefix."""


def gpt2_keys(reader: ConfigReader) -> None:
    """Let GPT-2's names of the sizes stand for the usual ones."""
    reader.alias(
        hidden_size="n_embd n_embed",
        num_hidden_layers="n_layer",
        num_attention_heads="n_head",
        max_position_embeddings="n_positions n_ctx seq_length",
        intermediate_size="n_inner",
    )


def equal_heads(reader: ConfigReader, hidden: int) -> tuple[int, int]:
    """Return the number of heads that share the hidden size, and their channels."""
    heads = reader.integer("num_attention_heads")
    return heads, whole_share(reader, hidden, heads)


def plain_ffn(
    reader: ConfigReader, hidden: int, key: str, default: str, *, bias: bool = True
) -> FeedForwardSpec:
    """Return a feed-forward of two maps, four times as wide as the model if nothing is said."""
    size = reader.integer("intermediate_size", 4 * hidden)
    return FeedForwardSpec(size, read_activation(reader, key, default), gated=False, bias=bias)


def assembled(
    reader: ConfigReader,
    family: str,
    defaults: Defaults,
    layers: tuple[LayerSpec, ...],
    norm: NormSpec | None,
) -> DecoderSpec:
    """Return the decoder of these blocks with what all families' configs say alike."""
    return DecoderSpec(
        family=family,
        vocab_size=reader.integer("vocab_size"),
        hidden_size=reader.integer("hidden_size"),
        layers=layers,
        norm=norm,
        tied_head=reader.flag("tie_word_embeddings", defaults.tied),
        max_positions=reader.integer("max_position_embeddings", defaults.max_positions),
        bos_id=bos_id(reader, defaults),
        eos_ids=eos_ids(reader, defaults),
    )
