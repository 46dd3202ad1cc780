"""Export the weightless decoder: torch.export over meta tensors, no weights, no memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobilepack.models.spec import DecoderSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def export_decoder(spec: DecoderSpec, max_seq_len: int, prefill_chunk: int) -> ExportedProgram:
    """Export the dynamic form of a decoder with composite operators and parameters on meta.

    Args:
        spec: The model.
        max_seq_len: Positions of the KV cache.
        prefill_chunk: Longest `seq` of one call.

    Returns:
        A program `(tokens int64 [1, seq], input_pos int64 [1]) -> logits float32 [1, vocab]` with
        1 <= seq <= prefill_chunk.
    """
    import torch

    from mobilepack.models.decoder import weightless

    decoder = weightless(spec, max_seq_len)
    longest = min(max_seq_len, prefill_chunk)
    example = min(3, longest)
    tokens = torch.zeros(1, example, dtype=torch.long, device="meta")
    position = torch.zeros(1, dtype=torch.long, device="meta")
    dynamic: tuple[dict[int, object], dict[int, object]] | None
    dynamic = None if longest == 1 else ({1: torch.export.Dim("seq", min=1, max=longest)}, {})
    with torch.no_grad():
        return torch.export.export(
            decoder, (tokens, position), dynamic_shapes=dynamic, strict=False
        )
