"""Peers get the tensors they expect under the names they expect."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.peers.export_llm.settings import meta_name, model_class, model_parameters
from benchmarks.peers.llama_cpp.layout import gguf_name, interleave_rope_rows, rope_factors
from benchmarks.peers.registry import PEERS, peer_named
from benchmarks.shapes import SHAPES, Shape, shape_named, tensor_sizes


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_tensor_has_one_name_of_its_own_with_each_peer(shape: Shape) -> None:
    names = [name for name, _, _ in tensor_sizes(shape)]
    assert len({gguf_name(name) for name in names}) == len(names)
    assert len({meta_name(name) for name in names}) == len(names)


def test_interleaved_rows_pair_each_row_with_its_rotary_partner() -> None:
    rows = np.arange(8, dtype=np.uint16)[:, None].repeat(3, axis=1)  # 2 heads of 4 rows
    assert interleave_rope_rows(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_rope_factors_equal_the_scaling_transformers_applies() -> None:
    config = shape_named("llama3.2-1b").config()
    factors = rope_factors(config)
    assert factors is not None
    assert factors[0] == 1.0
    assert factors[-1] == 32.0
    assert np.all(np.diff(factors) >= 0)
    assert rope_factors(shape_named("qwen3-0.6b").config()) is None


def test_export_llm_gets_scaled_rope_only_where_the_shape_has_it() -> None:
    scaled = model_parameters(shape_named("llama3.2-3b").config())
    plain = model_parameters(shape_named("smollm2-135m").config())
    assert (scaled["use_scaled_rope"], scaled["rope_scale_factor"]) == (True, 32)
    assert plain["use_hf_rope"] is True
    assert "use_scaled_rope" not in plain


def test_each_family_uses_the_model_class_of_its_code_path() -> None:
    names = ("smollm2-135m", "qwen3-0.6b", "llama3.2-1b")
    classes = [model_class(shape_named(name).config()) for name in names]
    assert classes == ["smollm2", "qwen3_0_6b", "llama3_2"]


def test_peer_names_are_unique_and_an_unknown_one_lists_them() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    with pytest.raises(KeyError, match=r"llama\.cpp"):
        peer_named("llama")


def test_bits_of_bf16_widen_exactly() -> None:
    from benchmarks.tensors import to_float32

    tensor = torch.randn(16).to(torch.bfloat16)
    bits = tensor.view(torch.uint16).numpy()
    np.testing.assert_array_equal(to_float32(bits), tensor.float().numpy())
