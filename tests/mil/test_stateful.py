"""States, multifunction packages and ExecuTorch programs, converted and run against eager torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mobilepack.mil.interpreter import Interpreter
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.mil.pte import open_pte
from mobilepack.mil.pte_run import PteRunner
from tests.mil.convert import convert, save, silent
from tests.mil.single import coremltools

pytestmark = pytest.mark.slow
WIDTH, PLACES = 32, 8


class Cache(nn.Module):
    """A cache of PLACES rows: writes `row` at `pos`, in one of several idioms."""

    def __init__(self, idiom: str) -> None:
        super().__init__()
        self.idiom = idiom
        self.register_buffer("rows", torch.zeros(1, 2, PLACES, WIDTH))
        self.register_buffer("places", torch.arange(PLACES))

    def forward(self, row: torch.Tensor, pos: torch.Tensor) -> torch.Tensor:
        count = row.shape[2]
        if self.idiom == "index":
            self.rows[:, :, pos] = row
        elif self.idiom == "one-hot":
            hot = (self.places[:, None] == pos[None]).to(row.dtype)
            kept = self.rows * (1 - hot.sum(1))[:, None]
            self.rows.copy_(kept + torch.matmul(hot, row))
        else:
            self.rows.copy_(torch.cat([self.rows[:, :, count:], row], 2))
        return self.rows * 2.0


def _worst(runner: Interpreter, eager: Cache) -> float:
    """Return the largest error over 6 writes, relative to the largest value."""
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for place in range(6):
        row = torch.randn(1, 2, 1, WIDTH, generator=generator)
        pos = torch.tensor([place], dtype=torch.int32)
        (result,) = runner.run({"row": row, "pos": pos}).values()
        wanted = eager(row, pos)
        worst = max(worst, float((result - wanted).abs().max() / wanted.abs().max()))
    return worst


def _example() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 2, 1, WIDTH), torch.tensor([0], dtype=torch.int32)


@pytest.mark.parametrize("idiom", ["one-hot", "shift"])
def test_an_exported_cache_keeps_what_is_written(idiom: str, tmp_path: Path) -> None:
    path = save(convert(Cache(idiom), _example()), tmp_path / "m.mlpackage")
    program = open_mlpackage(path)
    assert list(program.functions["main"].states) == ["rows"]
    # fp16 holds 11 bits: half an ulp of each value, written once and doubled exactly.
    assert _worst(Interpreter(program), Cache(idiom)) <= 2**-11


def test_the_state_write_that_a_traced_conversion_drops_is_found(tmp_path: Path) -> None:
    # coremltools#2188: torch.jit.trace and rows[:, :, pos] = row converts without an error, and the
    # state is never written.
    ct, _, _ = coremltools()
    module, example = Cache("index").eval(), _example()
    with silent(), torch.no_grad():
        model = ct.convert(
            torch.jit.trace(module, example, check_trace=False),
            inputs=[
                ct.TensorType("row", example[0].shape),
                ct.TensorType("pos", (1,), dtype=np.int32),
            ],
            outputs=[ct.TensorType("y")],
            states=[
                ct.StateType(ct.TensorType(shape=(1, 2, PLACES, WIDTH), dtype=np.float16), "rows")
            ],
            minimum_deployment_target=ct.target.iOS18,
            skip_model_load=True,
        )
    program = open_mlpackage(save(model, tmp_path / "m.mlpackage"))
    assert list(program.functions["main"].states) == ["rows"]
    assert _worst(Interpreter(program), Cache("index")) > 0.5


class Head(nn.Module):
    """A layer with a running sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(128, 256), nn.Linear(256, 64)
        self.register_buffer("total", torch.zeros(1, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(torch.relu(self.a(x)))
        self.total.add_(y.mean(0, keepdim=True))
        return y + self.total


@pytest.fixture(scope="module")
def head() -> Head:
    torch.manual_seed(0)
    return Head().eval().requires_grad_(False)


def test_functions_of_a_multifunction_package_share_weights_and_states(
    head: Head, tmp_path: Path
) -> None:
    ct, _, _ = coremltools()
    for name, rows in (("decode", 1), ("prefill", 4)):
        save(convert(head, (torch.randn(rows, 128),)), tmp_path / f"{name}.mlpackage")
    both = ct.utils.MultiFunctionDescriptor()
    for name in ("decode", "prefill"):
        both.add_function(str(tmp_path / f"{name}.mlpackage"), "main", name)
    both.default_function_name = "decode"
    with silent():
        ct.utils.save_multifunction(both, str(tmp_path / "both.mlpackage"))
    program = open_mlpackage(tmp_path / "both.mlpackage")
    assert sorted(program.functions) == ["decode", "prefill"]
    assert program.default == "decode"
    runner, state = Interpreter(program), Interpreter(program).new_state("prefill")
    eager = Head().eval().requires_grad_(False)
    eager.load_state_dict(head.state_dict())
    long, short = torch.randn(4, 128), torch.randn(1, 128)
    with torch.no_grad():
        eager.total.zero_()
        wanted = [eager(long), eager(short)]
    got = [
        next(iter(runner.run({"x": x}, name, state=state).values()))
        for x, name in ((long, "prefill"), (short, "decode"))
    ]
    for result, reference in zip(got, wanted, strict=True):
        # fp16: inputs, weights and three values rounded, sums of 256 terms of size about 1/16.
        assert torch.nn.functional.cosine_similarity(result, reference).min() > 0.99999
    # The two matrices exist once in fp32, for both functions.
    assert runner.weight_memory_bytes == 4 * (128 * 256 + 256 * 64)


def _lower(methods: dict[str, Any], path: Path, *, system: str, **options: Any) -> Path:
    coremltools()
    ct, _, _ = coremltools()
    share = options.pop("share", False)
    with silent():
        from executorch.backends.apple.coreml.compiler.coreml_preprocess import (
            MULTIMETHOD_WEIGHT_SHARING_STRATEGY,
            CoreMLBackend,
        )
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner
        from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

        specs = CoreMLBackend.generate_compile_specs(
            minimum_deployment_target=getattr(ct.target, system),
            compute_unit=ct.ComputeUnit.CPU_AND_NE,
        )
        if share:
            specs.append(
                CoreMLBackend.generate_multimethod_weight_sharing_strategy_compile_spec(
                    MULTIMETHOD_WEIGHT_SHARING_STRATEGY.POSITIONAL
                )
            )
        lowered = to_edge_transform_and_lower(
            methods,
            partitioner=[CoreMLPartitioner(compile_specs=specs, **options)],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        path.write_bytes(lowered.to_executorch().buffer)
    return path


def _exported(head: Head, rows: int) -> Any:
    return torch.export.export(head, (torch.randn(rows, 128),))


@pytest.mark.parametrize(("system", "inside"), [("iOS18", True), ("iOS17", False)])
def test_a_pte_runs_with_its_state_inside_or_outside_the_delegate(
    system: str, inside: bool, head: Head, tmp_path: Path
) -> None:
    path = _lower(
        {"forward": _exported(head, 2)},
        tmp_path / "m.pte",
        system=system,
        take_over_mutable_buffer=inside,
    )
    runner = PteRunner(open_pte(path))
    (program,) = runner.delegates.packages().values()
    assert bool(program.functions["main"].states) == inside
    eager = Head().eval().requires_grad_(False)
    eager.load_state_dict(head.state_dict())
    eager.total.zero_()
    for _ in range(3):
        x = torch.randn(2, 128)
        (result,) = runner.run([x])
        assert torch.nn.functional.cosine_similarity(result, eager(x)).min() > 0.99999


def test_methods_of_a_pte_share_a_package_by_reference(head: Head, tmp_path: Path) -> None:
    methods = {"forward": _exported(head, 1), "prefill": _exported(head, 4)}
    pte = open_pte(_lower(methods, tmp_path / "m.pte", system="iOS18", share=True))
    assert len(pte.named_data) == 1
    eager = Head().eval().requires_grad_(False)
    eager.load_state_dict(head.state_dict())
    long, short = torch.randn(4, 128), torch.randn(1, 128)
    for share in (True, False):
        runner = PteRunner(pte, share_states=share)
        assert len(runner.delegates.packages()) == 1
        eager.total.zero_()
        assert _close(runner.run([long], "prefill")[0], eager(long))
        if not share:  # as ExecuTorch's runtime: each delegate has its own
            eager.total.zero_()
        assert _close(runner.run([short])[0], eager(short))


def _close(result: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool(torch.nn.functional.cosine_similarity(result, wanted).min() > 0.99999)
