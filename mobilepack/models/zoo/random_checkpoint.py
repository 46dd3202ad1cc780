"""Write random-weight checkpoints of any config, one block of rows at a time.

Speed and memory do not depend on the values of the weights, so random ones serve where published
ones are not at hand; accuracy is never judged on them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mobilepack.models.families.registry import family_of
from mobilepack.models.spec import DecoderSpec, TensorSource
from mobilepack.models.zoo.filler_tokenizer import write_filler_tokenizer

# What published checkpoints of these sizes are split at (Llama-3.2-3B: 4.97 + 1.46 GB).
SHARD_LIMIT_BYTES = 5_000_000_000
_BF16_BYTES = 2
_BLOCK_VALUES = 4 << 20  # 16 MiB of float32 at a time
_EMBEDDING_STD = 0.05  # logits then have a standard deviation of 1.2 to 2.8
_NORM_STD = 0.1
_WRITTEN_AT_NS = 1_700_000_000 * 10**9
"""Modification time of the weights: the same config and seed make the same checkpoint, and a
fingerprint counts the time."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a checkpoint.

    Attributes:
        parameter: A parameter of the decoder that is read from it.
    """

    name: str
    shape: tuple[int, ...]
    parameter: str

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def stored_tensors(config: Mapping[str, Any]) -> tuple[StoredTensor, ...]:
    """Return the tensors that a checkpoint of this `config.json` has, in the decoder's order.

    Raises:
        UsageError: No family reads the config.
    """
    spec = spec_of(config)
    parts: dict[str, dict[tuple[int, tuple[tuple[int, int], ...]], tuple[str, TensorSource]]] = {}
    for parameter, source in family_of(config).sources(spec).items():
        for key in source.keys:
            parts.setdefault(key, {}).setdefault((source.start, source.pick), (parameter, source))
    return tuple(_stored(key, list(found.values())) for key, found in parts.items())


def spec_of(config: Mapping[str, Any]) -> DecoderSpec:
    """Return the decoder of a `config.json`."""
    return family_of(config).read(config)


def _stored(key: str, parts: Sequence[tuple[str, TensorSource]]) -> StoredTensor:
    parameter, first = parts[0]
    if first.stored:
        return StoredTensor(key, first.stored, parameter)
    rows = sum(source.shape[0] // len(source.keys) for _, source in parts)
    shape = (rows, *first.shape[1:])
    return StoredTensor(key, shape[::-1] if first.transposed else shape, parameter)


def write_random_checkpoint(config: Mapping[str, Any], folder: Path, seed: int = 0) -> None:
    """Write a complete Hugging Face checkpoint folder of bf16 random weights.

    The folder appears whole or not at all. The same seed gives the same bytes.

    Args:
        config: A published `config.json`.
        folder: Left alone if it is there.
        seed: Of the weights.
    """
    if (folder / "config.json").exists():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    spec = spec_of(config)
    eos = spec.eos_ids[0] if spec.eos_ids else 0
    bos = eos if spec.bos_id is None else spec.bos_id
    _write_json(partial / "config.json", dict(config))
    _write_json(partial / "generation_config.json", {"bos_token_id": bos, "eos_token_id": eos})
    write_filler_tokenizer(spec.vocab_size, bos, eos, spec.max_positions, partial)
    _write_weights(stored_tensors(config), partial, seed)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def split_into_shards(
    tensors: Sequence[StoredTensor], limit_bytes: int
) -> list[list[StoredTensor]]:
    """Split tensors, in order, into runs of at most `limit_bytes` (one tensor at least)."""
    shards: list[list[StoredTensor]] = [[]]
    used = 0
    for tensor in tensors:
        size = tensor.numbers * _BF16_BYTES
        if shards[-1] and used + size > limit_bytes:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += size
    return shards


def to_bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to bfloat16, ties to even, and return its bits.

    Finite input only: infinities and NaN are not random weights.
    """
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def _write_weights(tensors: Sequence[StoredTensor], folder: Path, seed: int) -> None:
    shards = split_into_shards(tensors, SHARD_LIMIT_BYTES)
    if len(shards) == 1:
        _write_shard(folder / "model.safetensors", shards[0], seed)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / name, shard, seed)
        weight_map |= {tensor.name: name for tensor in shard}
    total = sum(tensor.numbers * _BF16_BYTES for shard in shards for tensor in shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_shard(path: Path, tensors: Sequence[StoredTensor], seed: int) -> None:
    """Write one file: 8-byte little-endian header length, JSON header, tensors.

    Layout: safetensors format, huggingface/safetensors README, "Format".
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.numbers * _BF16_BYTES
        shape = list(tensor.shape)
        header[tensor.name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for tensor in tensors:
            _write_tensor(stream, tensor, seed)
    os.utime(path, ns=(_WRITTEN_AT_NS, _WRITTEN_AT_NS))


def _write_tensor(stream: IO[bytes], tensor: StoredTensor, seed: int) -> None:
    for block in _random_blocks(tensor, seed):
        stream.write(to_bf16_bits(block).tobytes())


def _random_blocks(tensor: StoredTensor, seed: int) -> Iterator[NDArray[np.float32]]:
    source = np.random.Generator(np.random.SFC64([seed, zlib.crc32(tensor.name.encode())]))
    std, mean = _spread(tensor)
    left = tensor.numbers
    while left:
        count = min(left, _BLOCK_VALUES)
        block = source.standard_normal(count, dtype=np.float32)
        block *= np.float32(std)
        block += np.float32(mean)
        yield block
        left -= count


def _spread(tensor: StoredTensor) -> tuple[float, float]:
    """Choose standard deviation and mean that keep activations near 1 through all layers."""
    if len(tensor.shape) == 1:
        return _NORM_STD, 1.0 if tensor.parameter.endswith("norm.weight") else 0.0
    if tensor.parameter in ("embed.weight", "positions.weight"):
        return _EMBEDDING_STD, 0.0
    residual = tensor.parameter.endswith((".o.weight", ".down.weight"))
    return (0.5 if residual else 1.0) / math.sqrt(tensor.shape[-1]), 0.0


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
