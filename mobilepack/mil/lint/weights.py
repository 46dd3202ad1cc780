"""Rules about weights and their compression."""

from __future__ import annotations

from collections.abc import Iterator

from mobilepack.mil.lint.rule import Hit, Subject, at, rule
from mobilepack.mil.program import OPSETS, Operation
from mobilepack.mil.types import DType, TensorType

LIMIT_BYTES = 1_000_000_000  # CT: per model on an iPhone
HARD_LIMIT_BYTES = 2 << 30  # coremltools#2593
GROUP_CHANNELS = range(8, 17)
FOUR_BIT = {DType.INT4, DType.UINT4}


@rule(
    "ANE016",
    "too-many-weights",
    "error",
    why="an iPhone loads at most 1 GB of weights per model (2 GiB fails everywhere)",
    remedy="compress the weights, or cut the model into several that run one after the other",
    source="CT, https://github.com/apple/coremltools/issues/2593",
)
def too_many_weights(subject: Subject) -> Iterator[Hit]:
    """Find programs above the limit."""
    size = subject.program.weight_bytes
    if size > LIMIT_BYTES:
        limit = "2 GiB" if size > HARD_LIMIT_BYTES else "1 GB"
        yield Hit("program", subject.function.name, f"{size:,} bytes, above {limit}")


def _compressed(subject: Subject) -> Iterator[tuple[Operation, dict[str, TensorType]]]:
    """Yield every constexpr operator with the types of its arguments."""
    for operation in subject.function.block.walk():
        if operation.type.startswith("constexpr_"):
            kinds = {name: constant.type for name, constant in operation.attributes.items()}
            for name in operation.inputs:
                kind = subject.weight(operation, name)
                if kind is not None:
                    kinds[name] = kind
            yield operation, kinds


def _blocks(kinds: dict[str, TensorType]) -> list[int]:
    """Return along how many blocks each axis after the first has scales of its own."""
    data, scale = kinds.get("data"), kinds.get("scale")
    if data is None or scale is None or len(data.sizes) != len(scale.sizes):
        return []
    return [s for s in scale.sizes[1:] if s > 1]


@rule(
    "ANE017",
    "per-block-weights",
    "error",
    why="scales per block of input channels are decompressed on CPU or GPU, not on the engine",
    remedy="quantise int4 or int8 per channel, or palettise in groups of 8 or 16 channels",
    source="CT, ET",
)
def per_block(subject: Subject) -> Iterator[Hit]:
    """Find weights with scales along more than the output channels."""
    for operation, kinds in _compressed(subject):
        if operation.type == "constexpr_blockwise_shift_scale" and _blocks(kinds):
            yield at(operation, operation.name, f"{kinds['data']} with scales {kinds['scale']}")


@rule(
    "ANE018",
    "palette-groups",
    "note",
    why="look-up tables are recommended per tensor or for groups of 8 to 16 channels",
    remedy="palettise with granularity per_grouped_channel and group_size 8 or 16",
    source="CT, ET",
)
def palette_groups(subject: Subject) -> Iterator[Hit]:
    """Find tables for groups of other sizes."""
    for operation, kinds in _compressed(subject):
        indices, lut = kinds.get("indices"), kinds.get("lut")
        if operation.type != "constexpr_lut_to_dense" or indices is None or lut is None:
            continue
        groups = zip(indices.sizes, lut.sizes[:-2], strict=False)
        sizes = [n // g for n, g in groups if g > 1]
        if any(size not in GROUP_CHANNELS for size in sizes):
            yield at(operation, operation.name, f"{indices}: groups of {sizes} channels")


def _needed(operation: Operation, kinds: dict[str, TensorType]) -> tuple[str, str]:
    """Return the first opset with a form of compression, and the form (CT, compression by OS)."""
    used = {kind.dtype for kind in kinds.values()}
    if operation.type.endswith("blockwise_shift_scale"):
        return "CoreML8", "int4 or per-block quantisation"
    if used & FOUR_BIT and operation.type == "constexpr_affine_dequantize":
        return "CoreML8", "4-bit quantisation"
    lut = kinds.get("lut")
    if lut is not None and len(lut.sizes) > 1 and any(size > 1 for size in lut.sizes[:-2]):
        return "CoreML8", "look-up tables per group"
    if lut is not None and lut.sizes and max(lut.sizes) == 8:
        return "CoreML8", "3-bit look-up tables"
    return "CoreML6", "per-tensor tables, int8 per channel, sparse weights"


@rule(
    "ANE022",
    "compression-newer-than-system",
    "error",
    why="this form of compression came with a later system than the package is for",
    remedy="raise the minimum deployment target, or use a form that it knows",
    source="CT",
)
def newer_compression(subject: Subject) -> Iterator[Hit]:
    """Find compressed weights that the package's system does not know."""
    have = subject.function.opset
    for operation, kinds in _compressed(subject):
        need, form = _needed(operation, kinds)
        if need > have:
            detail = f"{form} needs {OPSETS[need]}, the package is for {OPSETS[have]}"
            yield at(operation, operation.name, detail)
