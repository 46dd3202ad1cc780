"""The packages of a model: which functions lie together, and in what order a method calls them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilepack.backends.coreml.decoder import HIDDEN, NEW, DecoderWriter, Form, Part
from mobilepack.backends.coreml.pieces import chunks
from mobilepack.backends.coreml.storage import Source, Storage
from mobilepack.contract.manifest import FunctionCall, Method, TensorSpec
from mobilepack.mil.types import DType, TensorType
from mobilepack.mil.weight_writer import WeightWriter
from mobilepack.mil.writer import FunctionWriter, weight_file, write_mlpackage
from mobilepack.models.encodings import coreml_storage
from mobilepack.models.spec import DecoderSpec, parameter_shapes
from mobilepack.models.static import METHODS

METADATA = {"com.github.mobilepack.format": "1"}
SUFFIX = ".mlpackage"
_DTYPES = {DType.FLOAT16: "float16", DType.INT32: "int32"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to write.

    Attributes:
        opset: Core ML's operators, for example `CoreML8`.
        linear: How linear maps are stored: `fp16`, `8w`, `4w` or `4p`.
        group: Rows that share a table of `4p`.
        prefill_tokens: T of `prefill`.
        form: How functions are called.
        limit_bytes: Most weights of one package.
        functions: Whether a package may hold several functions.
        by_method: A method calls a package at most once, in the function of its own name, as
            ExecuTorch's delegate needs it.
    """

    opset: str
    linear: str
    group: int
    prefill_tokens: int
    form: Form
    limit_bytes: int
    functions: bool = True
    by_method: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        packages: Names of the packages below the folder.
        methods: With the calls that they are made of; `program` is a package's name.
        hidden: What a call hands to the next, by method and number of the call.
        operators: Of `decode`, constants left out.
    """

    packages: tuple[str, ...]
    methods: tuple[Method, ...]
    hidden: Mapping[tuple[str, int], TensorSpec]
    operators: int


@dataclass(frozen=True, slots=True)
class PlannedFunction:
    """A function to write.

    Attributes:
        package: Name of the package that it lies in.
        methods: Which call it.
        place: When, among all calls of a method.
    """

    package: str
    name: str
    part: Part
    tokens: int
    methods: tuple[str, ...]
    place: int


def write_packages(
    spec: DecoderSpec,
    source: Source,
    wanted: Wanted,
    folder: Path,
    on_share: Callable[[float], None] = lambda share: None,
) -> Written:
    """Write the packages of a model into a folder.

    Weights are read once, encoded while they are read, and shared by a package's functions.

    Args:
        spec: A model of attention and feed-forward blocks.
        source: Its weights.
        wanted: Lengths, system and storage.
        folder: Where packages go; it is there.
        on_share: Told the share of the weights that is written, 0 to 1.
    """
    sizes = _Sizes(spec, source, wanted)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_share(min(1.0, done / sizes.total))

    made: list[tuple[PlannedFunction, FunctionWriter]] = []
    for group in _groups(spec, sizes, wanted):
        names = list(dict.fromkeys(function.package for function in group))
        with WeightWriter(weight_file(folder / names[0])) as writer:
            storage = Storage(writer, source, wanted.opset, advance)
            decoder = DecoderWriter(spec, storage, wanted.form, wanted.linear, wanted.group)
            own = [(f, decoder.write(f.name, storage.opset, f.part, f.tokens)) for f in group]
        for name in names:
            functions = [written for function, written in own if function.package == name]
            if name != names[0]:
                _link(weight_file(folder / names[0]), weight_file(folder / name))
            write_mlpackage(folder / name, functions, functions[-1].name, METADATA)
        made += own
    made.sort(key=lambda pair: pair[0].place)
    return Written(
        tuple(dict.fromkeys(function.package for function, _ in made)),
        tuple(_method(name, made) for name in METHODS),
        {(name, i): spec for name in METHODS for i, spec in _hidden(name, made)},
        sum(written.operators for f, written in made if "decode" in f.methods),
    )


def functions_in_order(
    spec: DecoderSpec, source: Source, wanted: Wanted
) -> tuple[PlannedFunction, ...]:
    """Return every function that `write_packages` writes, as the methods call them."""
    groups = _groups(spec, _Sizes(spec, source, wanted), wanted)
    return tuple(sorted((f for group in groups for f in group), key=lambda f: f.place))


class _Sizes:
    """Bytes of a model's weights as they will be stored."""

    def __init__(self, spec: DecoderSpec, source: Source, wanted: Wanted) -> None:
        shapes = parameter_shapes(spec)
        self.tied = source.identity("head.weight") == source.identity("embed.weight")
        how = (wanted.linear, wanted.group, self.tied)
        sizes = {name: coreml_storage(name, shape, *how)[1] for name, shape in shapes.items()}
        if self.tied:
            sizes["head.weight"] = 0
        self.total = sum(sizes.values())
        own = [
            sum(size for name, size in sizes.items() if name.startswith(f"layers.{index}."))
            for index in range(len(spec.layers))
        ]
        self.layers = [
            own[index if layer.shares is None else layer.shares]
            for index, layer in enumerate(spec.layers)
        ]


def _groups(
    spec: DecoderSpec, sizes: _Sizes, wanted: Wanted
) -> Iterator[tuple[PlannedFunction, ...]]:
    """Yield functions that share a weight file, one group after the other."""
    count, tokens = len(spec.layers), (wanted.prefill_tokens, 1)
    several = wanted.functions

    def of(package: str, part: Part, place: int, prefix: str = "") -> Iterator[PlannedFunction]:
        for method, length in zip(METHODS, tokens, strict=True):
            own = (package, prefix + method) if several else (f"{package}_{method}", "main")
            yield PlannedFunction(f"{own[0]}{SUFFIX}", own[1], part, length, (method,), place)

    if sizes.total <= wanted.limit_bytes:
        yield tuple(of("model", Part(True, range(count), True), 0))
        return
    embed, head = Part(True, range(0), False), Part(False, range(0), True)

    def after(package: str, name: str, methods: tuple[str, ...]) -> PlannedFunction:
        return PlannedFunction(f"{package}{SUFFIX}", name, head, 1, methods, count)

    if wanted.by_method and several:
        yield tuple(of("embed", embed, -1))
        yield tuple(after("head", name, (name,)) for name in METHODS)
    elif several and sizes.tied:  # the table serves both: one package, called twice
        yield (*of("ends", embed, -1, "embed_"), after("ends", "head", METHODS))
    else:
        yield tuple(of("embed", embed, -1))
        yield (after("head", "head" if several else "main", METHODS),)
    for run in chunks(sizes.layers, wanted.limit_bytes):
        part = Part(False, run, False)
        yield tuple(of(f"layers_{run.start}_{run.stop - 1}", part, run.start))


def _link(file: Path, other: Path) -> None:
    """Let two packages have the same weights, on one place of the disk where that is possible."""
    other.unlink(missing_ok=True)
    try:
        os.link(file, other)
    except OSError:
        shutil.copyfile(file, other)


def _method(name: str, made: Sequence[tuple[PlannedFunction, FunctionWriter]]) -> Method:
    """Return a method: what goes into its calls from outside, and what comes out of them."""
    given: dict[str, TensorSpec] = {}
    results: dict[str, TensorSpec] = {}
    calls = []
    for function, written in made:
        if name not in function.methods:
            continue
        for label, kind in written.inputs.items():
            if label != HIDDEN:
                given.setdefault(label, _spec(label, kind))
        for label, kind in written.outputs.items():
            plain = label.removeprefix(NEW)
            if plain != HIDDEN:
                results[plain] = _spec(plain, kind)
        calls.append(
            FunctionCall(
                program=function.package,
                function=function.name,
                inputs=tuple(written.inputs),
                outputs=tuple(written.outputs),
            )
        )
    ordered = sorted(results.values(), key=lambda spec: spec.name != "logits")
    return Method(
        name=name, inputs=tuple(given.values()), outputs=tuple(ordered), calls=tuple(calls)
    )


def _hidden(
    name: str, made: Sequence[tuple[PlannedFunction, FunctionWriter]]
) -> Iterator[tuple[int, TensorSpec]]:
    """Yield the hidden vectors that a method's calls return, by the number of the call."""
    calls = (written for function, written in made if name in function.methods)
    for index, written in enumerate(calls):
        if NEW + HIDDEN in written.outputs:
            yield index, _spec(HIDDEN, written.outputs[NEW + HIDDEN])


def _spec(name: str, kind: TensorType) -> TensorSpec:
    return TensorSpec(name=name, dtype=_DTYPES[kind.dtype], shape=kind.sizes)
