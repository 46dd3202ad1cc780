"""MobileLLM (arXiv 2402.14905): Llama with a shared embedding; -LS runs every block twice.

The published checkpoints bring their own code. `share_embedding` decides, whatever
`tie_word_embeddings` says; with `layer_sharing` both runs of a block have a KV cache of their own.
"""

from __future__ import annotations

from dataclasses import replace

from mobilepack.models.config import ConfigReader
from mobilepack.models.families.llama_like import Layout, biased, llama_like
from mobilepack.models.families.reading import Defaults
from mobilepack.models.layer_spec import LayerSpec
from mobilepack.models.spec import DecoderSpec


def _layers(reader: ConfigReader, block: LayerSpec, count: int) -> tuple[LayerSpec, ...]:
    block = biased(reader, block)
    if not reader.flag("layer_sharing", False):
        return (block,) * count
    pairs = ((block, replace(block, shares=2 * index)) for index in range(count))
    return tuple(item for pair in pairs for item in pair)


def _finish(reader: ConfigReader, spec: DecoderSpec) -> DecoderSpec:
    return replace(spec, tied_head=reader.flag("share_embedding", spec.tied_head))


FAMILY = llama_like(
    "mobilellm",
    Defaults(2048, bos_id=1, eos_id=2, eps=1e-5),
    Layout(_layers, finish=_finish),
)
