"""Running programs: rounding, states, control flow, memory, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilepack.errors import UsageError
from mobilepack.mil.interpreter import Interpreter
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.mil.weights import LARGE
from tests.mil.packages import Writer, linear_package

F16 = "fp16"


def _open(writer: Writer, path: Path, **options: Any) -> Interpreter:
    return Interpreter(open_mlpackage(writer.save(path / "m.mlpackage")), **options)


def test_values_are_rounded_to_their_declared_type_or_not_at_all(tmp_path: Path) -> None:
    path, weight = linear_package(tmp_path / "m.mlpackage")
    program = open_mlpackage(path)
    x = torch.full((1, 6), 0.1)
    bias = torch.arange(8) / 8
    wide = torch.relu(x @ torch.from_numpy(weight).float().T + bias)
    free = Interpreter(program, "none").run({"x": x})["z"]
    assert torch.equal(free, wide)
    narrow = torch.relu((x.half().float() @ torch.from_numpy(weight).float().T + bias).half())
    assert torch.equal(Interpreter(program).run({"x": x})["z"], narrow.float())
    assert not torch.equal(free, narrow.float())


def test_rounding_can_overflow_as_fp16_does(tmp_path: Path) -> None:
    writer = Writer()
    x = writer.input("x", (F16, (1,)))
    writer.returns(writer.add("mul", ("y", (F16, (1,))), x=x, y=x))
    program = open_mlpackage(writer.save(tmp_path / "m.mlpackage"))
    assert Interpreter(program).run({"x": torch.tensor([300.0])})["y"].item() == float("inf")
    assert Interpreter(program, "none").run({"x": torch.tensor([300.0])})["y"].item() == 9e4


def _counter(path: Path) -> Interpreter:
    writer = Writer()
    x, s = writer.input("x", (F16, (2,))), writer.state("s", (F16, (2,)))
    old = writer.add("read_state", ("old", (F16, (2,))), input=s)
    new = writer.add("add", ("new", (F16, (2,))), x=old, y=x)
    writer.add("write_state", input=s, data=new)
    writer.returns(writer.add("read_state", ("y", (F16, (2,))), input=s))
    return _open(writer, path)


def test_states_outlive_a_call_and_can_be_kept_apart(tmp_path: Path) -> None:
    runner = _counter(tmp_path)
    x = {"x": torch.tensor([1.0, 2.0])}
    assert [runner.run(x)["y"].tolist() for _ in range(2)] == [[1, 2], [2, 4]]
    own = runner.new_state()
    assert runner.run(x, state=own)["y"].tolist() == [1, 2]
    assert own["s"].tolist() == [1, 2]
    runner.reset()
    assert runner.run(x)["y"].tolist() == [1, 2]
    with pytest.raises(UsageError, match="fp16"):
        runner.run(x, state={"s": torch.zeros(3)})


def _nested(writer: Writer, operation: Any, outputs: list[str]) -> Any:
    block = operation.blocks.add()
    block.outputs.extend(outputs)
    return block


def test_branches_and_loops_run_with_the_values_around_them(tmp_path: Path) -> None:
    # while i < n: (i, v) = (i + 1, v * x); then v if pred else x
    writer = Writer()
    x, n = writer.input("x", ("fp32", (2,))), writer.input("n", ("int32", ()))
    p = writer.input("p", ("bool", ()))
    one, zero = writer.constant("one", 1), writer.constant("zero", 0)
    loop = writer.block.operations.add(type="while_loop")
    for name in (zero, x):
        loop.inputs["loop_vars"].arguments.add().name = name
    for name, spec in (("i_out", ("int32", ())), ("v_out", ("fp32", (2,)))):
        writer._type(loop.outputs.add(name=name).type, spec)
    main = writer.block
    for suffix in ("c", "b"):
        block = loop.blocks.add()
        for name, spec in ((f"i_{suffix}", ("int32", ())), (f"v_{suffix}", ("fp32", (2,)))):
            writer._type(block.inputs.add(name=name).type, spec)
        writer.block = block
        if suffix == "c":
            block.outputs.append(writer.add("less", ("go", ("bool", ())), x="i_c", y=n))
        else:
            i = writer.add("add", ("i_next", ("int32", ())), x="i_b", y=one)
            v = writer.add("mul", ("v_next", ("fp32", (2,))), x="v_b", y=x)
            block.outputs.extend([i, v])
    writer.block = main
    cond = main.operations.add(type="cond")
    cond.inputs["pred"].arguments.add().name = p
    writer._type(cond.outputs.add(name="y").type, ("fp32", (2,)))
    for value in ("v_out", x):
        writer.block = cond.blocks.add()
        writer.block.outputs.append(
            writer.add("identity", (f"same_{value}", ("fp32", (2,))), x=value)
        )
    writer.block = main
    writer.returns("y")
    runner = _open(writer, tmp_path)
    given = {"x": torch.tensor([2.0, 3.0]), "n": torch.tensor(3), "p": torch.tensor(True)}
    for _ in range(2):
        assert runner.run(given)["y"].tolist() == [16, 81]
    assert runner.run(given | {"p": torch.tensor(False)})["y"].tolist() == [2, 3]
    assert runner.run(given | {"n": torch.tensor(0)})["y"].tolist() == [2, 3]


def test_an_unknown_operator_is_named_with_its_place(tmp_path: Path) -> None:
    writer = Writer()
    x = writer.input("x", (F16, (2,)))
    writer.returns(writer.add("quantum_leap", ("why", (F16, (2,))), x=x))
    with pytest.raises(UsageError, match="quantum_leap") as caught:
        _open(writer, tmp_path).run({"x": torch.zeros(2)})
    assert "'why'" in caught.value.why
    assert caught.value.code == "unknown-operator"


def test_an_unknown_parameter_is_not_ignored(tmp_path: Path) -> None:
    writer = Writer()
    x = writer.input("x", (F16, (2,)))
    writer.returns(writer.add("relu", ("y", (F16, (2,))), x=x, slope=0.5))
    with pytest.raises(UsageError, match="'slope'"):
        _open(writer, tmp_path).run({"x": torch.zeros(2)})


def test_arguments_that_do_not_fit_name_the_operation_and_their_shapes(tmp_path: Path) -> None:
    writer = Writer()
    x, y = writer.input("x", (F16, (None,))), writer.input("y", (F16, (3,)))
    writer.returns(writer.add("add", ("z", (F16, (3,))), x=x, y=y))
    with pytest.raises(UsageError, match=r"\[\[2\], \[3\]\]") as caught:
        _open(writer, tmp_path).run({"x": torch.zeros(2), "y": torch.zeros(3)})
    assert "add 'z'" in caught.value.what


def test_a_gather_beyond_the_table_is_an_error_and_so_is_a_negative_one_since_ios_17(
    tmp_path: Path,
) -> None:
    for opset, index, fine in (
        ("CoreML6", -1, True),
        ("CoreML8", -1, False),
        ("CoreML8", 5, False),
    ):
        writer = Writer(opset=opset)
        i = writer.input("i", ("int32", (1,)))
        table = writer.constant("t", np.arange(5.0), F16)
        writer.returns(writer.add("gather", ("y", (F16, (1,))), x=table, indices=i, axis=0))
        folder = tmp_path / f"{opset}{index}"
        folder.mkdir()
        runner = _open(writer, folder)
        given = {"i": torch.tensor([index])}
        if fine:
            assert runner.run(given)["y"].tolist() == [4]
        else:
            with pytest.raises(UsageError, match="gather 'y'"):
                runner.run(given)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "'x' is missing"),
        ({"x": torch.zeros(1, 6), "q": torch.zeros(1)}, "'q' is not one of its inputs"),
        ({"x": torch.zeros(6)}, r"\[6\], the program wants fp16\[1, 6\]"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_wrong_inputs_are_named(given: dict[str, Any], word: str, tmp_path: Path) -> None:
    path, _ = linear_package(tmp_path / "m.mlpackage")
    with pytest.raises(UsageError, match=word):
        Interpreter(open_mlpackage(path)).run(given)


def test_every_value_is_observed_in_order(tmp_path: Path) -> None:
    path, _ = linear_package(tmp_path / "m.mlpackage")
    seen: list[tuple[str, str]] = []
    Interpreter(open_mlpackage(path)).run(
        {"x": torch.zeros(1, 6)}, observe=lambda op, name, value: seen.append((op.type, name))
    )
    assert seen == [("linear", "y"), ("relu", "z")]


def test_a_shape_other_than_declared_is_found_when_values_are_observed(tmp_path: Path) -> None:
    writer = Writer()
    x = writer.input("x", (F16, (2,)))
    writer.returns(writer.add("relu", ("y", (F16, (3,))), x=x))
    runner = _open(writer, tmp_path)
    with pytest.raises(UsageError, match=r"declared is fp16\[3\]"):
        runner.run({"x": torch.zeros(2)}, observe=lambda *_: None)


def _large(path: Path, rows: int = 640, columns: int = 256) -> tuple[Path, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    weight = random.normal(size=(rows, columns)).astype("f2")
    points = random.normal(size=(rows, columns, 1, 1)).astype("f2")
    writer = Writer()
    i, x = writer.input("i", ("int32", (1, 1))), writer.input("x", (F16, (1, columns)))
    table = writer.stored("table", weight, F16)
    row = writer.add("gather", ("row", (F16, (1, 1, columns))), x=table, indices=i, axis=0)
    y = writer.add("linear", ("y", (F16, (1, rows))), x=x, weight=table)
    image = writer.add(
        "reshape", ("image", (F16, (1, columns, 1, 1))), x=row, shape=[1, columns, 1, 1]
    )
    kernel = writer.stored("kernel", points, F16)
    c = writer.add("conv", ("c", (F16, (1, rows, 1, 1))), x=image, weight=kernel)
    writer.returns(row, y, c)
    return writer.save(path / "m.mlpackage"), weight, points


@pytest.mark.parametrize("budget", [1 << 30, 1000, 0])
def test_results_do_not_depend_on_the_memory_for_weights(budget: int, tmp_path: Path) -> None:
    path, weight, points = _large(tmp_path)
    assert weight.size >= LARGE
    runner = Interpreter(open_mlpackage(path), budget_bytes=budget)
    x = torch.randn(1, 256, generator=torch.Generator().manual_seed(0)).half().float()
    for _ in range(2):
        result = runner.run({"i": torch.tensor([[7]]), "x": x})
        assert runner.weight_memory_bytes <= budget
    w, p = torch.from_numpy(weight).float(), torch.from_numpy(points).float()
    assert torch.equal(result["row"], w[7].reshape(1, 1, -1))
    # Sums of 256 products in another order, then one rounding to fp16: half an ulp of 64 at most.
    assert torch.allclose(result["y"], x @ w.T, rtol=2**-11, atol=2**-11)
    wanted = torch.einsum("oc,c->o", p[:, :, 0, 0], w[7])
    assert torch.allclose(result["c"].flatten(), wanted, rtol=2**-11, atol=2**-11)


def test_a_large_program_is_not_copied_however_much_memory_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, weight, _ = _large(tmp_path)
    monkeypatch.setattr("mobilepack.mil.weights.WIDEST_BYTES", 4 * weight.size)
    runner = Interpreter(open_mlpackage(path))
    runner.run({"i": torch.tensor([[0]]), "x": torch.zeros(1, 256)})
    assert runner.weight_memory_bytes == 0


@pytest.mark.parametrize(
    ("kind", "constants"),
    [
        ("transpose", {"perm": np.array([0, 7])}),
        ("softmax", {"axis": np.zeros(0, "i4")}),
        ("split", {"num_splits": 0, "axis": 5}),
        ("slice_by_index", {"begin": np.array([0]), "end": np.array([1]), "stride": np.array([0])}),
        ("cast", {"dtype": b"complex"}),
        ("tile", {"reps": np.array([1 << 30, 1 << 30])}),
    ],
    ids=["axis", "no-value", "split", "stride", "type", "size"],
)
def test_constants_that_do_not_fit_are_one_error(
    kind: str, constants: dict[str, Any], tmp_path: Path
) -> None:
    writer = Writer()
    x = writer.input("x", (F16, (2, 3)))
    writer.returns(writer.add(kind, ("y", (F16, (2, 3))), x=x, **constants))
    with pytest.raises(UsageError, match=f"{kind} 'y'"):
        _open(writer, tmp_path).run({"x": torch.zeros(2, 3)})


def test_functions_of_one_program_share_a_weight(tmp_path: Path) -> None:
    path, weight, _ = _large(tmp_path)
    runner = Interpreter(open_mlpackage(path))
    given = {"i": torch.tensor([[0]]), "x": torch.zeros(1, 256)}
    runner.run(given)
    once = runner.weight_memory_bytes
    assert once == 2 * 4 * weight.size  # the table and the kernel, each once in fp32
    runner.run(given)
    assert runner.weight_memory_bytes == once


def test_the_memory_of_weights_beyond_the_budget_is_that_of_the_mapped_file(tmp_path: Path) -> None:
    path, _, _ = _large(tmp_path)
    runner = Interpreter(open_mlpackage(path), budget_bytes=0)
    runner.run({"i": torch.tensor([[0]]), "x": torch.zeros(1, 256)})
    assert runner.weight_memory_bytes == 0


def test_compressed_constants_of_ios_16_are_attributes(tmp_path: Path) -> None:
    writer = Writer(opset="CoreML6")
    spec = ("fp16", (2, 3))
    names = [
        writer.compressed(
            "constexpr_affine_dequantize",
            ("a", spec),
            quantized_data=([[1, 2, 3], [250, 251, 252]], "uint8"),
            zero_point=([1, 250], "uint8"),
            scale=([0.5, 2.0], "fp16"),
            axis=0,
        ),
        writer.compressed(
            "constexpr_lut_to_dense",
            ("b", spec),
            indices=([0b11100100, 0b00000001], "uint8"),
            lut=([0.0, 10.0, 20.0, 30.0], "fp16"),
            shape=([2, 3], "uint32"),
        ),
        writer.compressed(
            "constexpr_sparse_to_dense",
            ("c", spec),
            nonzero_data=([7.0, 8.0], "fp16"),
            mask=([0b00010010], "uint8"),
            shape=([2, 3], "uint32"),
        ),
        writer.compressed(
            "constexpr_cast",
            ("d", ("fp32", (2, 3))),
            source_val=([[1, 2, 3], [4, 5, 6]], "fp16"),
            output_dtype=b"fp32",
        ),
    ]
    writer.returns(*names)
    result = _open(writer, tmp_path).run({})
    assert result["a"].tolist() == [[0, 0.5, 1], [0, 2, 4]]
    assert result["b"].tolist() == [[0, 10, 20], [30, 10, 0]]
    assert result["c"].tolist() == [[0, 7, 0], [0, 8, 0]]
    assert result["d"].tolist() == [[1, 2, 3], [4, 5, 6]]
