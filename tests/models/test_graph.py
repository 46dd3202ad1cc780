"""The typed glances at an exported graph, on the smallest decoder."""

from __future__ import annotations

import pytest
import torch
from torch.export import ExportedProgram

from mobilepack.models.graph import arguments, fixed, operators, parameter_names, result, shape
from mobilepack.models.spec import parameter_shapes
from mobilepack.pipeline.export import export_decoder
from tests.models.networks import tiny_spec

SPEC = tiny_spec("qwen3", num_hidden_layers=1, vocab_size=32)


@pytest.fixture(scope="module")
def exported() -> ExportedProgram:
    return export_decoder(SPEC, 16, 8)


def test_parameters_and_buffers_keep_the_decoders_names(exported: ExportedProgram) -> None:
    names = set(parameter_names(exported).values())
    buffers = {"tables.cos_0", "tables.sin_0", "caches.0.k_cache", "caches.0.v_cache"}
    assert names - {"head.weight"} == (set(parameter_shapes(SPEC)) | buffers) - {"head.weight"}


def test_composite_operators_stay_whole(exported: ExportedProgram) -> None:
    found = [str(node.target) for node in operators(exported)]
    counts = {
        name: found.count(f"mobilepack.{name}.default")
        for name in ("rms_norm", "head_norm", "rope", "attention", "last_token")
    }
    assert counts == {"rms_norm": 3, "head_norm": 2, "rope": 2, "attention": 1, "last_token": 2}
    assert found.count("aten.linear.default") == 8
    assert found[0] == "aten.embedding.default"


def test_shapes_tell_fixed_sizes_from_symbolic_ones(exported: ExportedProgram) -> None:
    embedding = operators(exported)[0]
    one, length, channels = shape(embedding)
    assert (one, channels) == (1, SPEC.hidden_size)
    assert isinstance(length, torch.SymInt)
    assert fixed(embedding, 2) == SPEC.hidden_size
    weight, tokens = arguments(embedding)[:2]
    assert (weight.op, tokens.name) == ("placeholder", "tokens")


def test_the_result_is_the_heads_output(exported: ExportedProgram) -> None:
    node = result(exported)
    assert node is operators(exported)[-1]
    assert shape(node) == (1, SPEC.vocab_size)


def test_no_weight_is_in_memory(exported: ExportedProgram) -> None:
    tensors = [*exported.state_dict.values(), *exported.constants.values()]
    assert all(tensor.is_meta for tensor in tensors if isinstance(tensor, torch.Tensor))


def test_a_program_without_a_node_as_result_is_refused() -> None:
    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> int:
            return 3

    exported = torch.export.export(Constant(), (torch.zeros(1),))
    with pytest.raises(TypeError, match="not a node"):
        result(exported)
