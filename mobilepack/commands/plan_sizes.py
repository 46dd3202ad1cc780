"""What a package's parts will weigh, from the model's shape and the recipe alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mobilepack.commands.components import COMPONENTS, component_of
from mobilepack.contract.manifest import Recipe
from mobilepack.models.encodings import (
    FLOAT_MATRICES,
    coreml_storage,
    embedding_encoding,
    linear_encoding,
)
from mobilepack.models.layer_spec import AttentionSpec, LayerSpec
from mobilepack.models.moe_spec import MoeSpec
from mobilepack.models.recurrent_spec import Mamba2Spec
from mobilepack.models.spec import ATTENTIONS, DecoderSpec, parameter_shapes
from mobilepack.models.tables import table_shapes
from mobilepack.pipeline.qnn import stored_as
from mobilepack.target import RECIPES

FLOAT_BYTES = 4
GROUP_SCALE_BYTES = 2  # bf16 of linear layers, fp16 of the embedding; one per int4 group
ROW_SCALE_BYTES = 4  # float32, one per int8 row
KV_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}

# Delegates' graphs and the flatbuffer, fitted to builds of 4 to 30 layers (executorch 1.5.1).
PROGRAM_BYTES, PROGRAM_BYTES_PER_LAYER = 8_000, 12_000
PROGRAM_BYTES_PER_EXPERT, PROGRAM_BYTES_PER_OTHER_MIXER = 4_500, 20_000

QNN_METHODS = 2
COREML_BYTES_PER_LAYER = 60_000
"""Of the description of both functions (embedded model: 0.5 MB)."""


@dataclass(frozen=True, slots=True)
class Component:
    """Parameters of one kind and their bytes in the program."""

    name: str
    parameters: int
    bytes: int


def coreml_components(spec: DecoderSpec, recipe: Recipe, max_seq_len: int) -> Iterator[Component]:
    """Yield the parts of a Core ML program; a tied head is the embedding table."""
    totals = {name: [0, 0] for name in COMPONENTS}
    how = (recipe.linear, recipe.group_size, spec.tied_head)
    for name, shape in parameter_shapes(spec).items():
        if name == "head.weight" and spec.tied_head:
            continue
        total = totals[component_of(name, spec)]
        total[0] += math.prod(shape)
        total[1] += coreml_storage(name, shape, *how)[1]
    for component, (parameters, size) in totals.items():
        yield Component(component, parameters, size)
    program = COREML_BYTES_PER_LAYER * len(spec.layers)
    yield Component("tables and program", 0, program_bytes(spec, max_seq_len) // 2 + program)


def program_components(spec: DecoderSpec, recipe: Recipe, max_seq_len: int) -> Iterator[Component]:
    """Yield the parts of the program file; a shared table's numbers count once, as embedding."""
    totals = {name: [0, 0] for name in COMPONENTS}
    for name, shape in parameter_shapes(spec).items():
        if name == "positions.weight":  # rows beyond the longest sequence are left out
            shape = (min(shape[0], max_seq_len), shape[1])
        shared = name == "head.weight" and head_shares_values(spec, recipe)
        total = totals[component_of(name, spec)]
        total[0] += 0 if shared else math.prod(shape)
        total[1] += stored_bytes(name, shape, recipe, shared=shared)
    for component, (parameters, size) in totals.items():
        yield Component(component, parameters, size)
    yield Component("tables and program", 0, program_bytes(spec, max_seq_len))


def loaded_bytes(spec: DecoderSpec, recipe: Recipe) -> int:
    """Return the bytes of the loaded weights: XNNPACK packs its own copy, of a shared head too."""
    shapes = parameter_shapes(spec)
    return sum(stored_bytes(name, shape, recipe) for name, shape in shapes.items())


def stored_bytes(name: str, shape: tuple[int, ...], recipe: Recipe, *, shared: bool = False) -> int:
    """Return the bytes of a parameter in the program; vectors stay in fp32 but on the NPU.

    A program for the NPU holds it twice, for `prefill` and for `decode`.

    int4 is half a byte per number and a 16-bit scale per group, K/2 + 2 K/g per row; int8 is K + 4
    per row (`backends/xnnpack/storage.py`).

    Args:
        name: The decoder's name of the parameter.
        shape: Its shape.
        recipe: How it is stored.
        shared: Another parameter's numbers serve; only scales of its own are added.
    """
    if recipe.linear in RECIPES["qnn"]:
        _, bits, scales = stored_as(name, shape, recipe)
        return QNN_METHODS * (math.prod(shape) * bits // 8 + FLOAT_BYTES * scales)
    if len(shape) == 1:
        return FLOAT_BYTES * shape[0]
    rows, columns = shape
    encoding, group = encoding_of(name, columns, recipe)
    if encoding == "fp32":
        return 0 if shared else FLOAT_BYTES * rows * columns
    if encoding == "int8":
        return rows * (ROW_SCALE_BYTES + (0 if shared else columns))
    return rows * (GROUP_SCALE_BYTES * columns // group + (0 if shared else columns // 2))


def encoding_of(name: str, columns: int, recipe: Recipe) -> tuple[str, int]:
    """Return a matrix' storage and group; where groups do not divide the columns, what is taken."""
    if FLOAT_MATRICES.fullmatch(name):
        return "fp32", 0
    if name == "embed.weight":
        return embedding_encoding(columns, recipe.embedding, recipe.group_size)
    return ("fp32", 0) if recipe.linear == "fp32" else linear_encoding(columns, recipe.group_size)


def head_shares_values(spec: DecoderSpec, recipe: Recipe) -> bool:
    """Say whether a tied head reads the embedding's numbers: both stored alike, in equal groups."""
    if recipe.linear in RECIPES["qnn"]:
        return False
    encoding, group = encoding_of("embed.weight", spec.table_size, recipe)
    table = ("int4" if encoding == "embedding4" else encoding, group)  # the same, pairs swapped
    return spec.tied_head and encoding_of("head.weight", spec.table_size, recipe) == table


def kv_bytes_per_token(spec: DecoderSpec, recipe: Recipe) -> int:
    """Return the bytes of one position's keys and values over all layers.

    With fp16, keys that have a bias stay in fp32; int8 has a scale per head
    (`backends/xnnpack/cache.py`).
    """
    width = KV_BYTES[recipe.kv_cache]
    if recipe.linear in RECIPES["qnn"]:  # half precision comes and goes as float32
        each = 1 if recipe.kv_cache == "int8" else FLOAT_BYTES
        return sum(2 * mixer.kv_size * each for mixer in spec.attentions)
    if recipe.kv_cache == "int8":
        return sum(2 * (m.kv_size + FLOAT_BYTES * m.n_kv_heads) for m in spec.attentions)
    return sum(
        mixer.kv_size * (width + (FLOAT_BYTES if mixer.qkv_bias else width))
        for mixer in spec.attentions
    )


def state_bytes(spec: DecoderSpec) -> int:
    """Return the bytes of the recurrent mixers' states, whatever the length."""
    mixers = [layer.mixer for layer in spec.layers]
    numbers = [mixer.state_numbers for mixer in mixers if not isinstance(mixer, ATTENTIONS)]
    return FLOAT_BYTES * sum(numbers) + (8 if numbers else 0)  # and the next position


def program_bytes(spec: DecoderSpec, max_seq_len: int) -> int:
    """Return the bytes that are no weights: position tables, delegates' graphs, the flatbuffer."""
    numbers = sum(math.prod(shape) for shape in table_shapes(spec, max_seq_len).values())
    tables = FLOAT_BYTES * (numbers + max_seq_len)  # and 0, 1, 2, …
    moes = [layer.ffn for layer in spec.layers if isinstance(layer.ffn, MoeSpec)]
    experts = PROGRAM_BYTES_PER_EXPERT * sum(moe.experts for moe in moes)
    others = sum(not isinstance(layer.mixer, AttentionSpec) for layer in spec.layers)
    graphs = PROGRAM_BYTES_PER_LAYER * len(spec.layers) + PROGRAM_BYTES_PER_OTHER_MIXER * others
    return tables + PROGRAM_BYTES + graphs + experts


def activation_bytes(
    spec: DecoderSpec, recipe: Recipe, max_seq_len: int, prefill_chunk: int
) -> int:
    """Return the bytes of intermediate tensors in the longest call, outside and inside delegates.

    Outside: hidden state twice, queries, keys, values and attention's result for a chunk, and the
    mask, or the logits. Inside: the larger of attention (scores before and after the softmax,
    copies of one layer's cache) and the feed-forward (gate, its activation, and up).
    """
    widest = max(spec.layers, key=_ffn_size)
    mixer = widest.mixer if isinstance(widest.mixer, ATTENTIONS) else None
    mixer = next(iter(spec.attentions), None) if mixer is None else mixer
    cached = max(2, KV_BYTES[recipe.kv_cache])  # int8 is widened to half precision for products
    outside = FLOAT_BYTES * prefill_chunk * (2 * spec.hidden_size + _between(spec))
    inside = 3 * FLOAT_BYTES * prefill_chunk * _ffn_size(widest)
    for other in {layer.mixer for layer in spec.layers if isinstance(layer.mixer, Mamba2Spec)}:
        inside = max(inside, FLOAT_BYTES * other.inside)
    if mixer is not None:
        outside += prefill_chunk * (FLOAT_BYTES * mixer.q_size)
        outside += prefill_chunk * cached * (mixer.q_size + 2 * mixer.kv_size)
        outside += FLOAT_BYTES * prefill_chunk * max_seq_len
        scores = 2 * FLOAT_BYTES * mixer.n_heads * prefill_chunk * max_seq_len
        inside = max(inside, scores + 2 * cached * max_seq_len * mixer.kv_size)
    return max(outside, FLOAT_BYTES * spec.vocab_size) + inside


def _ffn_size(layer: LayerSpec) -> int:
    return 0 if layer.ffn is None else layer.ffn.size


def _between(spec: DecoderSpec) -> int:
    """Return the channels per token that lie between segments beside an attention's.

    Experts: what they take, make, and make of every token; a recurrence: its operands and result.
    """
    channels = 0
    for layer in spec.layers:
        if isinstance(layer.ffn, MoeSpec):
            channels = max(channels, spec.hidden_size * (2 + layer.ffn.count))
        if not isinstance(layer.mixer, ATTENTIONS):
            channels = max(channels, layer.mixer.between)
    return channels
