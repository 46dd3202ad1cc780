"""Q4_0 as 8da4w: keep the integers instead of rounding what was rounded before.

Both store four bits in groups of 32 with a scale each. Q4_0's scale may be negative, so that the
number of largest magnitude is always -8 times it (ggml-quants.c `quantize_row_q4_0_ref`); XNNPACK's
must be positive (xnn_define_blockwise_quantized_tensor_value). Where Q4_0's is positive the same
integers are stored, and only the scale is rounded, from fp16 to bf16. Where it is negative the
integers are turned around, and the +8 among them, which four bits cannot hold, becomes 7 under the
scale that fits the group best.
"""

from __future__ import annotations

import torch

from mobilepack.models.quantization import INT4_HIGH, QuantisedRows, quantise, quantise_int4
from mobilepack.models.weights import Weights

GROUP = 32
_LARGEST = 8.0
_NEAR = 1e-4
"""How far a quotient may be from an integer: float32 rounds a factor on the weights to 1e-7."""


class GgufWeights(Weights):
    """Parameters of a GGUF file, which says of some how they are rounded."""

    def quantised(
        self, name: str, rows: torch.Tensor, start: int, encoding: str, group: int
    ) -> QuantisedRows:
        """Return rows as integers and scales; see `quantised_rows`."""
        del start  # the rows say everything
        keys = self.sources[name].keys
        stored = {self.checkpoint.info(key).dtype for key in keys}
        if encoding not in ("int4", "embedding4") or group != GROUP or stored != {"Q4_0"}:
            return quantise(rows, encoding, group)
        kept = keep_integers(rows)
        if encoding == "embedding4":  # kept in fp16 there; see quantise_embedding4
            largest = torch.finfo(torch.float16).max
            return QuantisedRows(kept.values, kept.scales.clamp(max=largest).half().float())
        return kept


def keep_integers(rows: torch.Tensor) -> QuantisedRows:
    """Return the integers of dequantised Q4_0 rows float32 `[rows, columns]`.

    A group that is no multiple of one eighth of its largest magnitude (another program's Q4_0) is
    rounded to nearest.
    """
    plain = quantise_int4(rows, GROUP)
    groups = rows.view(len(rows), -1, GROUP)
    step = groups.abs().amax(-1, keepdim=True) / _LARGEST
    quotients = groups / step.clamp(min=torch.finfo(torch.float32).tiny)
    integers = quotients.round()
    whole = ((quotients - integers).abs() < _NEAR).all(-1) & (step.squeeze(-1) > 0)
    held = integers.clamp(max=INT4_HIGH)
    # Least squares: the scale by which the held integers come nearest to the group. Where nothing
    # was cut off it is the step itself.
    fitted = (integers * held).sum(-1) / held.square().sum(-1).clamp(min=1.0) * step.squeeze(-1)
    scales = torch.where(whole, fitted.to(torch.bfloat16).float(), plain.scales)
    values = torch.where(whole.unsqueeze(-1), held.to(torch.int8), plain.values.view_as(held))
    return QuantisedRows(values.view_as(plain.values), scales)
