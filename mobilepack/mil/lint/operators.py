"""Rules about operators and how they are put together."""

from __future__ import annotations

from collections.abc import Iterator

from mobilepack.mil.lint.rule import Hit, Subject, at, rule
from mobilepack.mil.program import Operation
from mobilepack.mil.types import DType

PRODUCTS = {"linear": "weight", "matmul": "y", "conv": "weight"}
LARGEST_LINEAR = 1024


@rule(
    "ANE007",
    "linear-instead-of-conv",
    "warning",
    why="the Neural Engine is built for convolutions; linear and constant matmul layers are slower",
    remedy="write the layer as a 1x1 convolution over (B, C, 1, S)",
    source="TR, NE",
)
def linear_layer(subject: Subject) -> Iterator[Hit]:
    """Find products with a constant that are no convolutions."""
    for operation in subject.function.computing():
        if operation.type in ("linear", "matmul"):
            weight = subject.weight(operation, PRODUCTS[operation.type])
            if weight is not None:
                yield at(operation, operation.name, f"weight {weight}")


@rule(
    "ANE008",
    "heads-together",
    "note",
    why="attention over several heads in one operator keeps the engine from overlapping them",
    remedy="split query, key and value per head and compute each head by itself",
    source="TR, NE",
)
def heads_together(subject: Subject) -> Iterator[Hit]:
    """Find attention scores of several heads."""
    for operation, name, kind in subject.results():
        if operation.type not in ("softmax", "scaled_dot_product_attention"):
            continue
        sizes = kind.shape or ()
        query = subject.types.get(str(subject.argument(operation, "query")), kind)
        heads = (query.shape or sizes)[1] if len(sizes) >= 4 else None
        axis = subject.argument(operation, "axis")
        along = int(axis.array()) if axis is not None and not isinstance(axis, str) else -1
        if heads is not None and heads > 1 and along % len(sizes) != 1:
            yield at(operation, name, f"{heads} heads in {kind}")


@rule(
    "ANE009",
    "large-linear",
    "note",
    why="one very wide product does not fit the engine's local memory",
    remedy=f"split it into products of about {LARGEST_LINEAR} and concatenate",
    source="ET",
)
def large_linear(subject: Subject) -> Iterator[Hit]:
    """Find products whose weight is wider than 1024 outputs."""
    for operation in subject.function.computing():
        if operation.type in PRODUCTS:
            weight = subject.weight(operation, PRODUCTS[operation.type])
            sizes = weight.sizes if weight is not None else ()
            if sizes and sizes[0] > LARGEST_LINEAR:
                yield at(operation, operation.name, f"{sizes[0]} outputs")


@rule(
    "ANE011",
    "cache-write",
    "warning",
    why="a cache that the program writes keeps the attention around it off the Neural Engine",
    remedy="pass keys and values as inputs, return the new ones, and let the app append them",
    source="NE",
)
def cache_write(subject: Subject) -> Iterator[Hit]:
    """Find writes of states."""
    for operation in subject.function.computing():
        if operation.type == "write_state":
            state = str(subject.argument(operation, "input"))
            yield at(operation, state, f"{subject.types.get(state)}")


@rule(
    "ANE012",
    "state-last-axis",
    "error",
    why="a state whose last axis is no multiple of 32 fails to load on the Neural Engine",
    remedy="pad the last axis of the state to a multiple of 32",
    source="https://github.com/apple/coremltools/issues/2631",
)
def state_last_axis(subject: Subject) -> Iterator[Hit]:
    """Find states with an odd last axis."""
    for name, kind in subject.function.states.items():
        if kind.shape and kind.shape[-1] is not None and kind.shape[-1] % 32:
            yield Hit("state", name, f"{kind}")


@rule(
    "ANE013",
    "slice-update",
    "error",
    why="slice_update was rejected by the Neural Engine",
    remedy="write the cache outside the program, or blend with a one-hot mask",
    source="anemll-profile",
)
def slice_update(subject: Subject) -> Iterator[Hit]:
    """Find slice updates."""
    for operation, name, kind in subject.results():
        if operation.type == "slice_update":
            yield at(operation, name, f"{kind}")


@rule(
    "ANE015",
    "topk",
    "error",
    why="topk runs on the CPU, and so does what uses its result",
    remedy="return the scores and choose outside the program",
    source="anemll-profile, CT",
)
def topk(subject: Subject) -> Iterator[Hit]:
    """Find topk and everything that depends on it."""
    tainted: set[str] = set()
    for operation, name, _ in subject.results():
        if operation.type == "topk":
            tainted.add(name)
            yield at(operation, name, "runs on the CPU")
        elif any(used in tainted for used in operation.names_used):
            tainted.add(name)
            yield at(operation, name, "uses the result of topk")


@rule(
    "ANE019",
    "quantised-activations",
    "note",
    why="8-bit activations are faster on A17 Pro, M4 and newer only",
    remedy="keep fp16 activations for older devices",
    source="CT",
)
def quantised_activations(subject: Subject) -> Iterator[Hit]:
    """Find activations that are quantised at run time."""
    for operation, name, kind in subject.results():
        if operation.type == "quantize":
            yield at(operation, name, f"{kind}")


def _squared(subject: Subject, operation: Operation) -> str | None:
    """Return the value whose square is an operation's argument, None if it is no square."""
    made = subject.producer.get(str(subject.argument(operation, "x")))
    if made is None:
        return None
    x, y = (subject.argument(made, name) for name in "xy")
    power = made.type == "pow" and y is not None and not isinstance(y, str)
    if made.type == "square" or power or (made.type == "mul" and x == y):
        return x if isinstance(x, str) else None
    return None


def _scaled(subject: Subject, name: str | None) -> bool:
    """Say whether a value is divided by its own largest magnitude: no element passes 1."""
    made = subject.producer.get(str(name))
    if made is None or made.type != "real_div":
        return False
    divided, by = subject.argument(made, "x"), subject.argument(made, "y")
    waiting = [by]
    while waiting:
        source = subject.producer.get(str(waiting.pop()))
        if source is not None and source.type in ("maximum", "add"):  # a floor, or an epsilon
            waiting += [subject.argument(source, "x"), subject.argument(source, "y")]
        if source is not None and source.type == "reduce_max":
            magnitude = subject.producer.get(str(subject.argument(source, "x")))
            if magnitude is not None and magnitude.type == "abs":
                return subject.argument(magnitude, "x") == divided
    return False


@rule(
    "ANE020",
    "rmsnorm-overflow",
    "warning",
    why="a sum of squares passes fp16's 65504 where activations reach some hundreds",
    remedy="divide by the largest magnitude first, or use layer_norm over [x, -x]",
    source="https://github.com/apple/coremltools/issues/2585",
)
def rmsnorm_overflow(subject: Subject) -> Iterator[Hit]:
    """Find fp16 means and sums of squares that nothing keeps small."""
    for operation, name, kind in subject.results():
        if kind.dtype is not DType.FLOAT16:
            continue
        direct = operation.type in ("reduce_sum_square", "reduce_l2_norm")
        summed = operation.type in ("reduce_mean", "reduce_sum")
        squared = _squared(subject, operation) if summed else None
        if direct or (squared is not None and not _scaled(subject, squared)):
            yield at(operation, name, f"{kind}")


@rule(
    "ANE023",
    "flexible-and-stateful",
    "error",
    why="flexible shapes together with a state put every operator on the CPU",
    remedy="use fixed shapes (one function per shape), or pass the cache as inputs",
    source="https://github.com/apple/coremltools/issues/2600",
)
def flexible_and_stateful(subject: Subject) -> Iterator[Hit]:
    """Find functions with open shapes and states."""
    if not subject.function.states:
        return
    for item in subject.function.tensors:
        kind = subject.types.get(item.name)
        if kind is not None and not kind.is_static:
            yield Hit("input", item.name, f"{kind}, with {len(subject.function.states)} states")


@rule(
    "ANE024",
    "fused-attention",
    "note",
    why="the fused attention operator loses accuracy on iOS 26; ExecuTorch decomposes it there",
    remedy="decompose attention into products and a softmax for iOS 26",
    source="https://github.com/pytorch/executorch/issues/16144",
)
def fused_attention(subject: Subject) -> Iterator[Hit]:
    """Find fused attention operators."""
    for operation, name, kind in subject.results():
        if operation.type == "scaled_dot_product_attention":
            yield at(operation, name, f"{kind}")
