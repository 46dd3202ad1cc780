"""What was done to a package's weights, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilepack.contract.manifest import Manifest


def compression_text(manifest: Manifest) -> str:
    """Return what was done to the weights before they were lowered, empty for nothing."""
    wanted, done = manifest.plan.compression, manifest.compression
    if wanted is None or done is None:
        return ""
    parts = []
    if done.tokens != done.tokens_before:
        parts.append(f"{done.tokens:,} of {done.tokens_before:,} tokens")
    if done.layers != done.layers_before:
        parts.append(f"{done.layers} of {done.layers_before} blocks")
    if wanted.width:
        heads, channels = len(done.kept_kv_heads[0]), done.kept_ffn_channels[0]
        parts.append(f"{heads} key/value heads and {channels} feed-forward channels per block")
    if wanted.sparsity:
        parts.append(f"{done.zero_share:.0%} of the linear weights zero")
    if wanted.calibration:
        on = f" on {done.text_tokens:,} tokens" if done.text_tokens else ""
        parts.append(f"integers by {wanted.calibration}{on}")
    if manifest.parameters != done.parameters_before:
        parts.append(f"{manifest.parameters / done.parameters_before:.0%} of the parameters")
    return ", ".join(parts)
