"""Rules about element types and shapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mobilepack.mil.lint.rule import Hit, Subject, at, rule
from mobilepack.mil.program import Constant
from mobilepack.mil.types import DType, TensorType

MOST_ENUMERATED = 128  # CT, flexible inputs: at most 128 enumerated shapes
HIGHEST_RANK = 5
ALIGNMENT_BYTES = 64
# Three limits are reported for one axis: 16,384 (any), 32 Ki (channels), 65,536 (any).
LARGEST_AXIS = 16_384
LOWEST_MASK = -4e4
SEARCHED_ELEMENTS = 1 << 24  # a mask of 4096 × 4096; larger constants are weights
INTEGERS = {DType.INT32, DType.INT16, DType.UINT16, DType.INT64}
# Operators of integers that only prepare shapes or indices, which Core ML folds or runs anywhere.
MOVERS = {"shape", "gather", "concat", "slice_by_index", "squeeze", "expand_dims", "identity"}


@rule(
    "ANE001",
    "float32-value",
    "error",
    why="the Neural Engine computes in fp16; an operator with an fp32 result runs elsewhere",
    remedy="convert with compute_precision=FLOAT16, and cast what must stay fp32 at the edge",
    source="NE, ET",
)
def float32_value(subject: Subject) -> Iterator[Hit]:
    """Find computed values of type fp32."""
    for operation, name, kind in subject.results():
        if kind.dtype is DType.FLOAT32:
            yield at(operation, name, f"{kind}")


@rule(
    "ANE002",
    "dynamic-dimension",
    "error",
    why="a dimension that is known only at run time sends the work to CPU or GPU",
    remedy=f"give a fixed shape, or list at most {MOST_ENUMERATED} shapes (EnumeratedShapes)",
    source="ET, CT",
)
def dynamic_dimension(subject: Subject) -> Iterator[Hit]:
    """Find inputs whose sizes are open, or listed too often."""
    for item in subject.function.tensors:
        if not isinstance(item.type, TensorType) or item.type.is_static:
            continue
        listed = subject.program.enumerated.get((subject.function.name, item.name), 0)
        if not listed or listed > MOST_ENUMERATED:
            shapes = f"{listed} shapes are listed" if listed else "its range is open"
            yield Hit("input", item.name, f"{item.type}, {shapes}")


@rule(
    "ANE003",
    "rank-above-5",
    "error",
    why="the Neural Engine rejects tensors of more than 5 axes",
    remedy="reshape so that no value has more than 5 axes, better 4",
    source="NE",
)
def high_rank(subject: Subject) -> Iterator[Hit]:
    """Find values of more than 5 axes."""
    for operation, name, kind in subject.results():
        if kind.shape is not None and len(kind.shape) > HIGHEST_RANK:
            yield at(operation, name, f"{kind}")


@rule(
    "ANE004",
    "rank-5",
    "warning",
    why="five axes around attention are slow, and wrong on iOS 26",
    remedy="expand key/value heads by splitting and concatenating 4-axis tensors",
    source="ET, https://github.com/pytorch/executorch/issues/15833",
)
def rank_five(subject: Subject) -> Iterator[Hit]:
    """Find values of 5 axes."""
    for operation, name, kind in subject.results():
        if kind.shape is not None and len(kind.shape) == HIGHEST_RANK:
            yield at(operation, name, f"{kind}")


def _ends(subject: Subject) -> Iterator[tuple[str, str, TensorType]]:
    """Yield the tensors that enter or leave the function."""
    for way, items in (("input", subject.function.tensors), ("output", subject.function.outputs)):
        for item in items:
            if isinstance(item.type, TensorType) and item.type.shape:
                yield way, item.name, item.type


@rule(
    "ANE005",
    "unaligned-io",
    "warning",
    why=f"an input or output whose last axis is no multiple of {ALIGNMENT_BYTES} bytes is copied",
    remedy="pad the last axis, or lay the tensor out so that a long axis is last",
    source="NE",
)
def unaligned_io(subject: Subject) -> Iterator[Hit]:
    """Find inputs and outputs whose rows are padded when they are handed over."""
    for way, name, kind in _ends(subject):
        last = kind.shape[-1] if kind.shape else None
        if last is not None and last > 1 and last * kind.dtype.bits // 8 % ALIGNMENT_BYTES:
            yield Hit(way, name, f"{kind}: {last * kind.dtype.bits // 8} bytes")


@rule(
    "ANE006",
    "last-axis-1",
    "error",
    why=f"a last axis of 1 is padded to {ALIGNMENT_BYTES} bytes: 32 times the memory in fp16",
    remedy="put the sequence axis last (B, C, 1, S) and decode with S > 1, or flatten",
    source="NE",
)
def last_axis_one(subject: Subject) -> Iterator[Hit]:
    """Find inputs and outputs whose last axis is 1."""
    for way, name, kind in _ends(subject):
        if kind.shape and kind.shape[-1] == 1:
            yield Hit(way, name, f"{kind}")


@rule(
    "ANE010",
    "mask-below-fp16",
    "warning",
    why="-inf and values near -65504 become NaN or saturate when scores are added in fp16",
    remedy=f"mask with {LOWEST_MASK:g}",
    source="NE",
)
def low_mask(subject: Subject) -> Iterator[Hit]:
    """Find constants with elements below -4e4."""
    for operation in subject.function.block.walk():
        constant = operation.attributes.get("val") if operation.type == "const" else None
        if constant is not None and _is_low(constant):
            yield at(operation, operation.name, f"least element {_least(constant):g}")


def _is_low(constant: Constant) -> bool:
    kind = constant.type
    searched = kind.dtype in (DType.FLOAT16, DType.FLOAT32) and kind.elements > 0
    return searched and kind.elements <= SEARCHED_ELEMENTS and _least(constant) < LOWEST_MASK


def _least(constant: Constant) -> float:
    return float(np.nanmin(constant.array()))


@rule(
    "ANE014",
    "int32-operator",
    "warning",
    why="operators of integers were rejected by the Neural Engine",
    remedy="compute positions and masks outside the program and pass them as fp16",
    source="anemll-profile",
)
def integer_operator(subject: Subject) -> Iterator[Hit]:
    """Find arithmetic of integers."""
    for operation, name, kind in subject.results():
        if kind.dtype in INTEGERS and operation.type not in MOVERS:
            yield at(operation, name, f"{kind}")


@rule(
    "ANE021",
    "large-axis",
    "warning",
    why="axes of more than 16,384 (or 32 Ki channels, or 65,536: reports differ) leave the engine",
    remedy="split the operator along this axis",
    source="NE, TR",
)
def large_axis(subject: Subject) -> Iterator[Hit]:
    """Find values with a very long axis."""
    for operation, name, kind in subject.results():
        if any(size is not None and size > LARGEST_AXIS for size in kind.shape or ()):
            yield at(operation, name, f"{kind}")
