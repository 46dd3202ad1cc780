"""A QNN package's contexts, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobilepack.cli import render

if TYPE_CHECKING:
    from mobilepack.contract.manifest import Manifest


def print_npu(manifest: Manifest) -> None:
    """Print contexts, traffic and the bound of a decode step; nothing for other backends."""
    from mobilepack.commands.npu import decode_bound

    npu = manifest.npu
    if npu is None:
        return
    for program in dict.fromkeys(context.program for context in npu.contexts):
        own = [context for context in npu.contexts if context.program == program]
        shards = 1 + max(context.shard for context in own)
        sizes = ", ".join(render.size(context.bytes) for context in own)
        runs = "the HTP emulator" if program == npu.emulator_program else "a phone"
        render.line(
            f"contexts    {program} for {runs}: {shards} shard{'s' * (shards > 1)}, {sizes}"
        )
    if npu.phone_program is not None:
        render.line(f"tied by     weights sha256 {npu.weights_sha256[:12]}, and each graph's")
    program = npu.phone_program or npu.emulator_program
    for graph in npu.graphs:
        if graph.program == program and graph.read_bytes is not None:
            shard = f" shard {graph.shard}" if graph.shard else ""
            render.line(
                f"one call    {graph.method}{shard}: reads {render.size(graph.read_bytes)},"
                f" writes {render.size(graph.write_bytes or 0)}, of these"
                f" {render.size((graph.spill_bytes or 0) + (graph.fill_bytes or 0))} spilled and"
                " read back"
            )
    bound = decode_bound(manifest)
    if bound is not None:
        render.line(
            f"at most     {bound.tok_per_s:.0f} tok/s of decode, an estimate from"
            f" {bound.gb_per_s:g} GB/s of memory ({bound.source}); no measurement"
        )
