"""A method's boundary: floats where its integers have 16 bits, whatever shards it is cut into."""

from __future__ import annotations

from typing import Any

import pytest

from mobilepack.backends.qnn.boundary import with_floats_outside
from mobilepack.backends.qnn.contexts import FloatOperands, IntegerOperands, tensor_kinds
from mobilepack.backends.qnn.encodings import Codes, Groups
from mobilepack.backends.qnn.graph import Graph
from mobilepack.backends.qnn.sequences import Tracer
from mobilepack.backends.qnn.shards import Cuts, crossing, shards_of
from tests.models.networks import tiny_spec

CONTEXT, LAYERS = 32, 3
Made = tuple[Graph, Graph, IntegerOperands]


@pytest.fixture(scope="module")
def made() -> Made:
    """A quantised graph of two masks, as it is traced and as it is compiled."""
    spec = tiny_spec("mistral", num_hidden_layers=LAYERS)
    graph = Tracer(spec, CONTEXT, "together", quantised=True).graph(4, CONTEXT - 1)
    groups = Groups([graph])
    floats = [t for s in graph.steps for t in (*s.inputs, s.output) if t.dtype == "float32"]
    codes = Codes(groups, {groups.of(t.name): (-1.0, 1.0) for t in floats})
    constants: Any = None
    operands = IntegerOperands(constants, codes)
    return graph, with_floats_outside(graph, operands), operands


def test_masks_and_logits_are_floats_and_caches_stay_integers(made: Made) -> None:
    graph, found, operands = made
    kinds = tensor_kinds((*found.inputs, *found.outputs), operands)
    by_name = {name.removesuffix("_float"): kind for name, kind in kinds.items()}
    assert list(by_name) == [t.name for t in (*graph.inputs, *graph.outputs)]
    for name, kind in by_name.items():
        caches = {"k": "uint8", "v": "uint8"}
        whole = "int32" if name in ("tokens", "positions") else "float32"
        assert kind == caches.get(name.split("_")[0], whole), name


def test_what_is_inside_keeps_its_name_and_encoding(made: Made) -> None:
    graph, found, _ = made
    inner = [s for s in found.steps if s.kind not in ("quantize", "dequantize")]
    assert [s.output for s in inner] == [s.output for s in graph.steps]
    read = [[t.name for t in s.inputs] for s in inner]
    assert read == [[t.name for t in s.inputs] for s in graph.steps]
    (quantised,) = {s.output.name for s in found.steps if s.kind == "quantize"}
    assert quantised == next(t.name for t in graph.inputs if t.name.startswith("mask"))
    assert found.steps[-1].kind == "dequantize"
    assert found.steps[-1].inputs[0].name == graph.outputs[0].name
    made_so_far = {t.name for t in found.inputs}
    for step in found.steps:
        assert all(t.role == "constant" or t.name in made_so_far for t in step.inputs)
        made_so_far.add(step.output.name)


def test_between_shards_nothing_is_turned_to_floats(made: Made) -> None:
    _, found, operands = made
    shards = shards_of(found, Cuts((0, 1, 2)))
    kinds = [{s.kind for s in shard.steps} & {"quantize", "dequantize"} for shard in shards]
    assert kinds == [{"quantize"}, set(), {"dequantize"}]
    between = crossing(found, shards)
    assert {tensor_kinds([t], operands)[t.name] for t in between} == {"uint16"}


def test_a_graph_of_floats_stays_as_it_is() -> None:
    graph = Tracer(tiny_spec(), CONTEXT, "together", quantised=False).graph(1, CONTEXT - 1)
    constants: Any = None
    assert with_floats_outside(graph, FloatOperands(constants)) == graph
