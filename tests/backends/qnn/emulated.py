"""What the HTP emulator computes, in a process with Qualcomm's libraries: `... NAME OUT.npz`.

`products`: accumulators of single maps and products, as integers, beside what eager torch computes.
`shards`: logits of a tiny model in one context per method and in several.
`boundary`: numbers quantised, and integers dequantised, beside what an encoding says.
`lowerings`: logits of a tiny model's program by the fast lowering and by ExecuTorch's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mobilepack.backends.qnn.container import MethodPlan, Part, write_program
from mobilepack.backends.qnn.contexts import Compiler, bound_inputs, bound_outputs, tensor_kinds
from mobilepack.backends.qnn.encodings import Code, Matrix, quantise_blocks, quantise_matrix
from mobilepack.backends.qnn.fake_quantised import _product
from mobilepack.backends.qnn.graph import Graph, Step, Tensor
from mobilepack.backends.qnn.options import Options
from mobilepack.backends.qnn.request import LowerRequest, LowerResult
from mobilepack.models.static_session import StaticSession

SOC = "SM8650"


class Given:
    """Operands of a graph of one step."""

    def __init__(self, codes: dict[str, Code], matrix: Matrix | None = None) -> None:
        self.codes, self._matrix = codes, matrix

    def code(self, tensor: Tensor) -> Code | None:
        return self.codes.get(tensor.name)

    def matrix(self, tensor: Tensor) -> Any:
        return self._matrix

    def constant(self, tensor: Tensor) -> Any:
        raise NotImplementedError(tensor.name)

    def matrix_bits(self, tensor: Tensor) -> int:
        raise NotImplementedError(tensor.name)

    def bias(self, bias: Tensor, x: Tensor, matrix: Tensor) -> Any:
        raise NotImplementedError(bias.name)


def computed(
    folder: Path, graph: Graph, given: Given, inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return a graph's only output on the emulator."""
    with Compiler(Options(SOC, half=False)) as compiler:
        context = compiler.context({"forward": graph}, given)
        specification = compiler.compile_spec
    part = Part(bound_inputs(graph), bound_outputs(graph), 0)
    plan = MethodPlan(graph, tensor_kinds((*graph.inputs, *graph.outputs), given), (part,))
    write_program(folder / "one.pte", {"forward": plan}, [context], specification, {})
    return run(folder / "one.pte", "forward", inputs)[0]


def run(path: Path, method: str, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    from executorch.extension.pybindings import portable_lib

    program = portable_lib._load_for_executorch(str(path))
    return [output.clone() for output in program.run_method(method, tuple(inputs))]


def products(out: Path) -> None:
    """A map with 4 and with 8 bits, and scores of queries and keys; inputs away from the middle."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, np.ndarray[Any, Any]] = {}
    x = torch.randint(2000, 60000, (1, 1, 5, 96), generator=generator)
    codes = {"x": Code(1e-3, 33024, 16), "y": Code(3e-6, 32768, 16)}
    weight = torch.randn(32, 96, generator=generator) * 3e-4
    matrices = {
        "4": quantise_matrix(weight, 4),
        "8": quantise_matrix(weight, 8),
        "block": quantise_blocks(weight, 32),
    }
    for kind, matrix in matrices.items():
        one, two, y = (
            Tensor("x", tuple(x.shape), "float32", "input"),
            Tensor("w", (32, 96), "float32", "constant"),
            Tensor("y", (1, 1, 5, 32), "float32", "inner"),
        )
        graph = Graph((one,), (y,), (Step("linear", (one, two), y),))
        have = computed(out.parent, graph, Given(codes, matrix), [x.to(torch.uint16)])
        accumulators = _product((x - 33024) * 1e-3, matrix.signed().float(), 1e-3) * 256
        wanted = codes["y"].integers(accumulators * (1e-3 * matrix.scales))
        found[f"have_{kind}"], found[f"want_{kind}"] = have.int().numpy(), wanted.int().numpy()
    keys = torch.randint(0, 256, (1, 2, 96, 7), generator=generator)
    queries = x.reshape(1, 1, 5, 96).repeat(1, 2, 1, 1)
    codes |= {"k": Code(1e-3, 128, 8)}
    q, k, y = (
        Tensor("x", (1, 2, 5, 96), "float32", "input"),
        Tensor("k", (1, 2, 96, 7), "float32", "input"),
        Tensor("y", (1, 2, 5, 7), "float32", "inner"),
    )
    graph = Graph((q, k), (y,), (Step("matmul", (q, k), y),))
    inputs = [queries.to(torch.uint16), keys.to(torch.uint8)]
    codes["y"] = Code(4e-2, 32768, 16)
    have = computed(out.parent, graph, Given(codes), inputs)
    accumulators = _product((queries - 33024) * 1e-3, (keys - 128).float(), 1e-3) * 256
    wanted = codes["y"].integers(accumulators * 1e-6)
    found["have_kv"], found["want_kv"] = have.int().numpy(), wanted.int().numpy()
    np.savez(out, **found)


def boundary(out: Path) -> None:
    """Every integer of an encoding, whose numbers go in and whose integers come back, and back."""
    code = Code(1.5e-3, 33024, 16)
    shape = (1, 1, 64, 1024)
    outside, inside = (
        Tensor("x_float", shape, "float32", "outside"),
        Tensor("x", shape, "float32", "inner"),
    )
    integers = torch.arange(65536, dtype=torch.int32).view(shape)
    numbers = (integers - code.zero_point) * code.scale
    given, wide = Given({"x": code}), integers.to(torch.uint16)
    into = Graph((outside,), (inside,), (Step("quantize", (outside,), inside),))
    back = Graph((inside,), (outside,), (Step("dequantize", (inside,), outside),))
    near = numbers + 0.4 * code.scale * (1 - 2 * (integers % 2))  # of an integer, and no tie
    found = {"integers": integers.numpy(), "numbers": numbers.numpy()}
    found["quantised"] = computed(out.parent, into, given, [near]).int().numpy()
    found["dequantised"] = computed(out.parent, back, given, [wide]).numpy()
    np.savez(out, **found)


def lowerings(out: Path) -> None:
    """Logits of decode steps, [steps, vocabulary], by either lowering."""
    from mobilepack.backends.qnn.fast_lowering import lower
    from mobilepack.backends.qnn.reference_lowering import lower_by_executorch

    found = {}
    requests = {n: LowerRequest.load(out.parent / f"{n}.request") for n in ("fast", "reference")}
    fast = lower(requests["fast"], lambda stage, share: None, executorch_code)
    reference = lower_by_executorch(requests["reference"], lambda stage, share: None)
    for name, result in (("fast", fast), ("reference", reference)):
        found[name] = _steps(requests[name], result)
        found |= {f"{name}_{variant}": rows.sampled for variant, rows in result.rows.items()}
    np.savez(out, **found)


def shards(out: Path) -> None:
    """Logits of the same steps from one shard and from several."""
    from mobilepack.backends.qnn.fast_lowering import lower

    found: dict[str, Any] = {}
    for name in ("whole", "cut"):
        request = LowerRequest.load(out.parent / f"{name}.request")
        result = lower(request, lambda stage, share: None)
        found[name] = _steps(request, result)
        found[f"{name}_shards"] = 1 + max(context.shard for context in result.contexts)
        found[f"{name}_hashes"] = [*result.graphs_sha256.values(), result.weights_sha256]
    np.savez(out, **found)


def executorch_code(low: float, high: float, bits: Literal[8, 16]) -> Code:
    """Return the encoding that ExecuTorch gives a range: any zero point."""
    if bits == 8:
        return Code(2 * max(-low, high) / 255, 127, 8)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 65535
    return Code(scale, round(-low / scale), 16)


def _steps(request: LowerRequest, result: LowerResult) -> np.ndarray[Any, Any]:
    def called(name: str, arrays: Sequence[Any]) -> list[Any]:
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        return [output.numpy() for output in run(request.out, name, tensors)]

    session = StaticSession(result.form, result.methods, called)
    row = np.array(request.rows[0])
    width = request.prefill_tokens
    rows = [session(row[:width], 0).copy()]
    rows += [session(row[at : at + 1], at).copy() for at in range(width, width + 3)]
    return np.stack(rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    modes = {
        "products": products, "boundary": boundary, "lowerings": lowerings, "shards": shards,
    }  # fmt: skip
    modes[sys.argv[1]](Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # the libraries' own end is not our matter
