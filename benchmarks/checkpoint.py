"""Write random-weight checkpoints in published shapes, one block of rows at a time.

Run by hand: `python -m benchmarks.checkpoint smollm2-135m -o DIR`.
Speed and memory do not depend on the values of the weights, so random ones serve;
accuracy is never judged on them.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from benchmarks.shapes import SHAPES, Shape, shape_named, tensor_sizes
from benchmarks.vocabulary import write_tokenizer

# What published checkpoints of these sizes are split at (Llama-3.2-3B: 4.97 + 1.46 GB).
SHARD_LIMIT_BYTES = 5_000_000_000
_BF16_BYTES = 2
_BLOCK_VALUES = 4 << 20  # 16 MiB of float32 at a time
_EMBEDDING_STD = 0.05  # logits then have a standard deviation of 1.2 to 2.8
_NORM_STD = 0.1

TensorSize = tuple[str, int, int]


def write_checkpoint(shape: Shape, folder: Path, seed: int = 0) -> None:
    """Write a complete Hugging Face checkpoint folder of bf16 random weights.

    The folder appears whole or not at all. The same seed gives the same bytes.
    """
    if (folder / "config.json").exists():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_json(partial / "config.json", shape.config())
    ids = {"bos_token_id": shape.bos_token_id, "eos_token_id": shape.eos_token_id}
    _write_json(partial / "generation_config.json", ids)
    write_tokenizer(shape, partial)
    _write_weights(shape, partial, seed)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def split_into_shards(sizes: Sequence[TensorSize], limit_bytes: int) -> list[list[TensorSize]]:
    """Split tensors, in order, into runs of at most `limit_bytes` (one tensor at least)."""
    shards: list[list[TensorSize]] = [[]]
    used = 0
    for size in sizes:
        if shards[-1] and used + _tensor_bytes(size) > limit_bytes:
            shards.append([])
            used = 0
        shards[-1].append(size)
        used += _tensor_bytes(size)
    return shards


def to_bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to bfloat16, ties to even, and return its bits.

    Finite input only: infinities and NaN are not random weights.
    """
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def _write_weights(shape: Shape, folder: Path, seed: int) -> None:
    shards = split_into_shards(tensor_sizes(shape), SHARD_LIMIT_BYTES)
    if len(shards) == 1:
        _write_shard(folder / "model.safetensors", shards[0], seed)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / name, shard, seed)
        weight_map |= {size[0]: name for size in shard}
    total = sum(_tensor_bytes(size) for shard in shards for size in shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_shard(path: Path, sizes: Sequence[TensorSize], seed: int) -> None:
    """Write one file: 8-byte little-endian header length, JSON header, tensors.

    Layout: safetensors format, huggingface/safetensors README, "Format".
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, rows, columns in sizes:
        end = offset + _tensor_bytes((name, rows, columns))
        shape = [rows, columns] if columns else [rows]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for size in sizes:
            _write_tensor(stream, size, seed)


def _write_tensor(stream: IO[bytes], size: TensorSize, seed: int) -> None:
    for block in _random_blocks(size, seed):
        stream.write(to_bf16_bits(block).tobytes())


def _random_blocks(size: TensorSize, seed: int) -> Iterator[NDArray[np.float32]]:
    name, rows, columns = size
    source = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))
    std, mean = (_NORM_STD, 1.0) if not columns else (_weight_std(name, columns), 0.0)
    left = rows * max(columns, 1)
    while left:
        count = min(left, _BLOCK_VALUES)
        block = source.standard_normal(count, dtype=np.float32)
        block *= np.float32(std)
        block += np.float32(mean)
        yield block
        left -= count


def _weight_std(name: str, columns: int) -> float:
    """Choose a spread that keeps activations near 1 through any number of layers."""
    if name == "model.embed_tokens.weight":
        return _EMBEDDING_STD
    residual = name.endswith(("o_proj.weight", "down_proj.weight"))
    return (0.5 if residual else 1.0) / math.sqrt(columns)


def _tensor_bytes(size: TensorSize) -> int:
    return size[1] * max(size[2], 1) * _BF16_BYTES


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the named checkpoints under a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint", description=__doc__)
    parser.add_argument("shapes", nargs="+", choices=[shape.name for shape in SHAPES])
    parser.add_argument("-o", "--output-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for name in options.shapes:
        shape = shape_named(name)
        write_checkpoint(shape, options.output_dir / name, options.seed)
        print(options.output_dir / name, f"{shape.parameter_count() / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
