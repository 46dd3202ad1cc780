"""Generated checkpoints are ordinary Hugging Face folders of the published sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors import safe_open

from benchmarks.checkpoint import write_checkpoint
from benchmarks.shapes import SHAPES, Shape, shape_named, tensor_sizes
from benchmarks.tensors import read_tensors, to_float32
from mobilepack.models.zoo.filler_tokenizer import byte_alphabet, vocabulary
from mobilepack.models.zoo.random_checkpoint import StoredTensor, split_into_shards, to_bf16_bits

# Published parameter counts, in millions (model cards; Phi-3.5-mini: 3.8 B).
_PUBLISHED_MILLIONS = {
    "smollm2-135m": 134.5,
    "qwen3-0.6b": 596.0,
    "llama3.2-1b": 1235.8,
    "llama3.2-3b": 3212.7,
    "phi3.5-mini": 3821.1,
}


def _tiny() -> Shape:
    return replace(
        shape_named("qwen3-0.6b"),
        name="tiny",
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=400,
        bos_token_id=1,
        eos_token_id=2,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_shape_has_the_published_parameter_count(shape: Shape) -> None:
    assert shape.parameter_count() / 1e6 == pytest.approx(_PUBLISHED_MILLIONS[shape.name], abs=0.1)


def test_an_unknown_shape_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="smollm2-135m"):
        shape_named("smollm")


@settings(deadline=None)  # a busy machine is not a failure
@given(
    arrays(
        np.float32,
        st.integers(1, 50),
        elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
    )
)
def test_bf16_rounding_equals_torch(values: np.ndarray) -> None:
    ours = to_float32(to_bf16_bits(values))
    theirs = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(ours, theirs)


@settings(deadline=None)  # a busy machine is not a failure
@given(
    st.lists(st.tuples(st.text(min_size=1), st.integers(1, 50), st.integers(0, 9)), min_size=1),
    st.integers(1, 500),
)
def test_shards_keep_order_and_stay_within_the_limit(
    sizes: list[tuple[str, int, int]], limit: int
) -> None:
    tensors = [StoredTensor(name, (rows, max(columns, 1)), name) for name, rows, columns in sizes]
    shards = split_into_shards(tensors, limit)
    assert [tensor for shard in shards for tensor in shard] == tensors
    for shard in shards:
        assert sum(2 * tensor.numbers for tensor in shard) <= limit or len(shard) == 1


def test_a_written_checkpoint_is_read_by_safetensors_with_its_shapes(tmp_path: Path) -> None:
    shape = _tiny()
    write_checkpoint(shape, tmp_path / "tiny")
    wanted = {name: [r, c] if c else [r] for name, r, c in tensor_sizes(shape)}
    with safe_open(tmp_path / "tiny" / "model.safetensors", "pt") as stream:
        found = {name: stream.get_slice(name).get_shape() for name in stream.keys()}  # noqa: SIM118
        first = stream.get_tensor("model.embed_tokens.weight")
    assert found == wanted
    assert first.dtype == torch.bfloat16
    own = next(iter(read_tensors(tmp_path / "tiny")))
    np.testing.assert_array_equal(to_float32(own.bits), first.float().numpy())


def test_a_checkpoint_that_exists_is_left_alone(tmp_path: Path) -> None:
    write_checkpoint(_tiny(), tmp_path / "tiny")
    before = (tmp_path / "tiny" / "model.safetensors").stat().st_mtime_ns
    write_checkpoint(_tiny(), tmp_path / "tiny", seed=1)
    assert (tmp_path / "tiny" / "model.safetensors").stat().st_mtime_ns == before


def test_the_byte_alphabet_has_one_printable_character_per_byte() -> None:
    alphabet = byte_alphabet()
    assert sorted(alphabet) == list(range(256))
    assert len(set(alphabet.values())) == 256
    assert all(letter.isprintable() for letter in alphabet.values())


def test_a_vocabulary_fills_every_id_once() -> None:
    words = vocabulary(400, {1: "<a>", 2: "<b>"})
    assert sorted(words.values()) == list(range(400))
    assert (words["<a>"], words["<b>"]) == (1, 2)
