"""How the static form is quantised: which tensors have 16 bits, which 8, and which share a scale.

Everything has 16-bit activations but the KV cache. Each layer's keys have one encoding of 8 bits
from the moment they are made: the new ones, the cache (input and output) and the operand of the
product share one observer, so a value is rounded once and read back as it was written. The same
holds for the values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

_OPS = torch.ops.aten


def kv_cache_specification(bits: int = 8) -> Any:
    """Return the specification of a cache's numbers: unsigned, centred on 0."""
    from torchao.quantization.pt2e import MinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    return QuantizationSpec(
        dtype=torch.uint8 if bits == 8 else torch.int32,
        quant_min=0,
        quant_max=2**bits - 1,
        qscheme=torch.per_tensor_symmetric if bits == 8 else torch.per_tensor_affine,
        observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=1e-4 / (2**bits - 1)),
    )


def annotate_head(graph: GraphModule) -> None:
    """Give the head's weights 8 bits: it decides between tokens, and 4 bits cost it most."""
    from executorch.backends.qualcomm.quantizer.qconfig import get_ptq_per_channel_quant_config
    from executorch.backends.qualcomm.quantizer.rules import Q_ANNOTATION_KEY

    specification = get_ptq_per_channel_quant_config(torch.uint16, torch.int8).weight
    for node in graph.graph.nodes:
        if node.target is _OPS.conv2d.default and node.args[1].target == "head.weight":
            node.meta[Q_ANNOTATION_KEY].input_qspec_map[node.args[1]] = specification


def annotate_slices(graph: GraphModule) -> None:
    """Let a slice keep the encoding of what it is taken from.

    A range of its own would cost a rounding, and the last token's is known from few examples.
    """
    from executorch.backends.qualcomm.quantizer.rules import Q_ANNOTATION_KEY
    from torchao.quantization.pt2e.quantizer import SharedQuantizationSpec

    for node in graph.graph.nodes:
        if node.target is _OPS.slice.Tensor and Q_ANNOTATION_KEY in node.meta:
            shared = SharedQuantizationSpec((node.args[0], node))
            node.meta[Q_ANNOTATION_KEY].output_qspec = shared


def annotate_caches(graph: GraphModule) -> None:
    """Give every attention's keys and values one encoding each."""
    for node in graph.graph.nodes:
        if node.target is _OPS.cat.default and _is_cache(node):
            _annotate_cache(node)


def _is_cache(node: Node) -> bool:
    """Whether a concatenation joins an input of the graph (the cache) with what is new."""
    parts = node.args[0]
    past, new = (parts[0], parts[-1]) if isinstance(parts, list | tuple) else (None, None)
    if not (isinstance(past, Node) and isinstance(new, Node)):
        return False
    return past.op == "placeholder" and new.target is _OPS.permute.default


def _annotate_cache(cat: Node) -> None:
    from executorch.backends.qualcomm.quantizer.rules import Q_ANNOTATION_KEY
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, SharedQuantizationSpec

    parts: Any = cat.args[0]
    past, new = parts
    source = new.args[0]
    # the first edge in the graph's order holds the observer; nothing may refer to a later one
    shared = SharedQuantizationSpec((source, new))
    new.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
        input_qspec_map={source: kv_cache_specification()}, output_qspec=shared, _annotated=True
    )
    cat.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
        input_qspec_map={past: shared, new: shared}, output_qspec=shared, _annotated=True
    )
    for user in cat.users:
        _annotate_reader(user, cat, shared)


def _annotate_reader(user: Node, read: Node, shared: Any) -> None:
    """Let a product read the cache in its own encoding, through a split into heads if there is."""
    from executorch.backends.qualcomm.quantizer.rules import Q_ANNOTATION_KEY
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    if user.target is _OPS.matmul.default:
        user.meta[Q_ANNOTATION_KEY].input_qspec_map[read] = shared
        return
    user.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
        input_qspec_map={read: shared}, output_qspec=shared, _annotated=True
    )
    for further in user.users:
        _annotate_reader(further, user, shared)
