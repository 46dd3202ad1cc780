"""Turn one of our checkpoints into a Q4_0 GGUF file.

Run in the llama.cpp environment:
`python -m benchmarks.peers.llama_cpp.convert CHECKPOINT OUT.gguf`.
The bf16 GGUF in between is lossless. The vocabulary is left out ("no_vocab"), as
our own programs do not hold one either: sizes compare weights with weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.llama_cpp.layout import gguf_name, interleave_rope_rows, rope_factors
from benchmarks.tensors import read_tensors, to_float32


def write_bf16(checkpoint: Path, path: Path) -> None:
    """Write a bf16 GGUF file, streaming one tensor at a time."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, config["model_type"])
    _add_metadata(writer, config)
    factors = rope_factors(config)
    for tensor in read_tensors(checkpoint):
        _announce(writer, gguf_name(tensor.name), tensor.bits)
    if factors is not None:
        _announce(writer, "rope_freqs.weight", factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in read_tensors(checkpoint):
        writer.write_tensor_data(_stored_form(tensor.name, tensor.bits, config))
    if factors is not None:
        writer.write_tensor_data(factors)
    writer.close()


def quantize_q4_0(source: Path, path: Path, threads: int) -> None:
    """Quantise with llama.cpp's own defaults for Q4_0 (a tied head becomes Q6_K)."""
    llama_cpp: Any = import_module("llama_cpp")
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    parameters.nthread = threads
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), parameters)
    if status != 0:
        raise RuntimeError(f"llama_model_quantize returned {status} for {source}")


def _add_metadata(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("no_vocab")


def _announce(writer: gguf.GGUFWriter, name: str, values: NDArray[Any]) -> None:
    """Register a tensor: vectors are kept in float32, matrices in bf16."""
    if values.ndim == 1:
        writer.add_tensor_info(name, values.shape, np.dtype(np.float32), values.size * 4)
        return
    writer.add_tensor_info(
        name,
        values.shape,
        np.dtype(np.uint16),
        values.nbytes,
        raw_dtype=gguf.GGMLQuantizationType.BF16,
    )


def _stored_form(
    name: str, bits: NDArray[np.uint16], config: Mapping[str, Any]
) -> NDArray[np.uint16] | NDArray[np.float32]:
    if bits.ndim == 1:
        return to_float32(bits)
    if config["model_type"] == "llama" and name.endswith("q_proj.weight"):
        return interleave_rope_rows(bits, config["num_attention_heads"])
    if config["model_type"] == "llama" and name.endswith("k_proj.weight"):
        return interleave_rope_rows(bits, config["num_key_value_heads"])
    return bits


def main() -> None:
    """Convert one checkpoint; leaves only the quantised file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    whole = options.output.with_suffix(".bf16.gguf")
    partial = options.output.with_suffix(".partial.gguf")
    try:
        write_bf16(options.checkpoint, whole)
        quantize_q4_0(whole, partial, options.threads)
        partial.rename(options.output)
    finally:
        whole.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
