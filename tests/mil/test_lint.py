"""Each rule of the lint: a program that breaks it, and one that does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobilepack.mil.lint import rule as rule_module
from mobilepack.mil.lint import weights as weight_rules
from mobilepack.mil.lint.run import LEVELS, lint_program, rules
from mobilepack.mil.mlpackage import open_mlpackage
from tests.mil.packages import Spec, Writer

F16 = "fp16"
Build = Callable[[Writer], None]


def _end(writer: Writer, name: str, spec: Spec) -> None:
    writer.returns(writer.add("relu", ("y", spec), x=name))


def _one(spec: Spec) -> Build:
    def build(writer: Writer) -> None:
        _end(writer, writer.input("x", spec), spec)

    return build


def _linear(rows: int = 64) -> Build:
    def build(writer: Writer) -> None:
        x = writer.input("x", (F16, (1, 64)))
        w = writer.stored("w", np.zeros((rows, 64)), F16)
        writer.returns(writer.add("linear", ("y", (F16, (1, rows))), x=x, weight=w))

    return build


def _conv(rows: int = 64) -> Build:
    def build(writer: Writer) -> None:
        x = writer.input("x", (F16, (1, 64, 1, 32)))
        w = writer.stored("w", np.zeros((rows, 64, 1, 1)), F16)
        writer.returns(writer.add("conv", ("y", (F16, (1, rows, 1, 32))), x=x, weight=w))

    return build


def _softmax(heads: int, axis: int = -1) -> Build:
    spec = (F16, (1, heads, 32, 32))

    def build(writer: Writer) -> None:
        writer.returns(writer.add("softmax", ("y", spec), x=writer.input("x", spec), axis=axis))

    return build


def _mask(value: float) -> Build:
    def build(writer: Writer) -> None:
        x = writer.input("x", (F16, (1, 32)))
        m = writer.constant("m", np.array([[0.0] * 31 + [value]]), F16)
        writer.returns(writer.add("add", ("y", (F16, (1, 32))), x=x, y=m))

    return build


def _state(width: int, *, write: bool = True, open_input: bool = False) -> Build:
    def build(writer: Writer) -> None:
        size = None if open_input else 32
        x = writer.input("x", (F16, (1, size)))
        s = writer.state("s", (F16, (1, width)))
        old = writer.add("read_state", ("old", (F16, (1, width))), input=s)
        if write:
            writer.add("write_state", input=s, data=old)
        writer.returns(writer.add("relu", ("y", (F16, (1, size))), x=x))

    return build


def _unary(kind: str, spec: Spec, **constants: object) -> Build:
    def build(writer: Writer) -> None:
        x = writer.input("x", spec)
        writer.returns(writer.add(kind, ("y", spec), x=x, **constants))

    return build


def _slice_update(writer: Writer) -> None:
    x, u = writer.input("x", (F16, (1, 32))), writer.input("u", (F16, (1, 32)))
    begin, end = np.array([0, 0]), np.array([1, 32])
    writer.returns(
        writer.add("slice_update", ("y", (F16, (1, 32))), x=x, update=u, begin=begin, end=end)
    )


def _topk(writer: Writer) -> None:
    x = writer.input("x", (F16, (1, 32)))
    t = writer.add("topk", ("t", (F16, (1, 32))), x=x, k=32, return_indices=False)
    writer.returns(writer.add("relu", ("y", (F16, (1, 32))), x=t))


def _quantize(writer: Writer) -> None:
    x = writer.input("x", (F16, (1, 32)))
    scale = writer.constant("scale", 0.5, F16)
    writer.returns(
        writer.add("quantize", ("q", ("int8", (1, 32))), input=x, scale=scale, output_dtype=b"int8")
    )


def _norm(writer: Writer) -> None:
    x = writer.input("x", (F16, (1, 32)))
    s = writer.add("mul", ("s", (F16, (1, 32))), x=x, y=x)
    writer.returns(
        writer.add("reduce_mean", ("y", (F16, (1, 1))), x=s, axes=np.array([1]), keep_dims=True)
    )


def _scaled_norm(writer: Writer) -> None:
    """Divide by the largest magnitude first, as coremltools and our own programs do."""
    one, whole = (F16, (1, 1)), (F16, (1, 32))
    x = writer.input("x", whole)
    magnitude = writer.add("abs", ("a", whole), x=x)
    axes = np.array([1])
    largest = writer.add("reduce_max", ("m", one), x=magnitude, axes=axes, keep_dims=True)
    least = writer.constant("least", 2.0**-12, F16)
    floor = writer.add("maximum", ("f", one), x=largest, y=least)
    scaled = writer.add("real_div", ("d", whole), x=x, y=floor)
    squared = writer.add("square", ("s", whole), x=scaled)
    writer.returns(writer.add("reduce_mean", ("y", one), x=squared, axes=axes, keep_dims=True))


def _attention(writer: Writer) -> None:
    spec = (F16, (1, 1, 32, 32))
    names = {key: writer.input(key, spec) for key in ("query", "key", "value")}
    writer.returns(writer.add("scaled_dot_product_attention", ("y", spec), **names))


def _scaled(scales: tuple[int, int], opset: str = "CoreML8") -> Build:
    def build(writer: Writer) -> None:
        data = writer.stored("data", np.zeros((32, 64)), "int4")
        scale = writer.stored("scale", np.ones(scales), F16)
        w = writer.add(
            "constexpr_blockwise_shift_scale", ("w", (F16, (32, 64))), data=data, scale=scale
        )
        x = writer.input("x", (F16, (1, 64)))
        writer.returns(writer.add("linear", ("y", (F16, (1, 32))), x=x, weight=w))

    return build


def _palette(groups: int) -> Build:
    def build(writer: Writer) -> None:
        indices = writer.stored("indices", np.zeros((32, 64)), "uint4")
        lut = writer.stored("lut", np.zeros((groups, 1, 16, 1)), F16)
        w = writer.add("constexpr_lut_to_dense", ("w", (F16, (32, 64))), indices=indices, lut=lut)
        x = writer.input("x", (F16, (1, 64)))
        writer.returns(writer.add("linear", ("y", (F16, (1, 32))), x=x, weight=w))

    return build


# id → (a program that breaks the rule, one that does not)
PROGRAMS: dict[str, tuple[Build, Build]] = {
    "ANE001": (_one(("fp32", (1, 32))), _one((F16, (1, 32)))),
    "ANE002": (_one((F16, (1, None))), _one((F16, (1, 32)))),
    "ANE003": (_one((F16, (1,) * 5 + (32,))), _one((F16, (1,) * 4 + (32,)))),
    "ANE004": (_one((F16, (1,) * 4 + (32,))), _one((F16, (1,) * 3 + (32,)))),
    "ANE005": (_one((F16, (1, 33))), _one((F16, (1, 64)))),
    "ANE006": (_one((F16, (32, 1))), _one((F16, (1, 32)))),
    "ANE007": (_linear(), _conv()),
    "ANE008": (_softmax(3), _softmax(1)),
    "ANE009": (_conv(1025), _conv(1024)),
    "ANE010": (_mask(float("-inf")), _mask(-4e4)),
    "ANE011": (_state(32), _state(32, write=False)),
    "ANE012": (_state(48), _state(64)),
    "ANE013": (_slice_update, _one((F16, (1, 32)))),
    "ANE014": (_unary("square", ("int32", (1, 32))), _unary("square", (F16, (1, 32)))),
    "ANE015": (_topk, _one((F16, (1, 32)))),
    "ANE017": (_scaled((32, 2)), _scaled((32, 1))),
    "ANE018": (_palette(8), _palette(2)),
    "ANE019": (_quantize, _one((F16, (1, 32)))),
    "ANE020": (_norm, _scaled_norm),
    "ANE021": (_one((F16, (1, 16_416))), _one((F16, (1, 16_384)))),
    "ANE023": (_state(32, open_input=True), _state(32)),
    "ANE024": (_attention, _softmax(1)),
}


def _hits(build: Build, path: Path, opset: str = "CoreML8") -> list[str]:
    writer = Writer(opset=opset)
    build(writer)
    return [item.rule for item in lint_program(open_mlpackage(writer.save(path)))]


@pytest.mark.parametrize("identifier", PROGRAMS)
def test_a_rule_finds_what_it_is_about_and_nothing_else(identifier: str, tmp_path: Path) -> None:
    breaks, keeps = PROGRAMS[identifier]
    assert identifier in _hits(breaks, tmp_path / "breaks.mlpackage")
    assert identifier not in _hits(keeps, tmp_path / "keeps.mlpackage")


def test_weights_above_the_limit_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_rules, "LIMIT_BYTES", 10_000)
    assert "ANE016" in _hits(_linear(128), tmp_path / "large.mlpackage")
    assert "ANE016" not in _hits(_linear(32), tmp_path / "small.mlpackage")


def test_compression_that_the_system_does_not_know_is_found(tmp_path: Path) -> None:
    build = _scaled((32, 1))
    assert "ANE022" in _hits(build, tmp_path / "old.mlpackage", "CoreML7")
    assert "ANE022" not in _hits(build, tmp_path / "new.mlpackage")


def test_channels_first_attention_is_no_attention_over_heads(tmp_path: Path) -> None:
    # (B, keys, 1, queries): the softmax runs over axis 1.
    assert "ANE008" not in _hits(_softmax(64, axis=1), tmp_path / "m.mlpackage")


@pytest.mark.parametrize(("shapes", "found"), [(2, False), (128, False), (129, True)])
def test_listed_shapes_are_fine_up_to_128(shapes: int, found: bool, tmp_path: Path) -> None:
    writer = Writer()
    _one((F16, (1, None)))(writer)
    kind = writer.model.description.input.add(name="x").type.multiArrayType
    for size in range(shapes):
        kind.enumeratedShapes.shapes.add().shape.extend([1, size + 2])
    program = open_mlpackage(writer.save(tmp_path / "m.mlpackage"))
    assert ("ANE002" in {item.rule for item in lint_program(program)}) == found


def test_every_rule_is_tested_and_says_why_what_to_do_and_who_says_so() -> None:
    tested = {*PROGRAMS, "ANE016", "ANE022"}
    assert {item.id for item in rules()} == tested
    assert len({item.name for item in rules()}) == len(rules())
    for item in rules():
        assert item.why
        assert item.remedy
        assert item.level in LEVELS
        assert not set(item.source.split("; ")) & set(rule_module.SOURCES), "a source is spelt out"
