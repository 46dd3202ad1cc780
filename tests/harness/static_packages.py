"""Packages of the static form for XNNPACK, lowered by ExecuTorch: what no backend builds yet."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mobilepack.contract.base import content_id
from mobilepack.contract.manifest import Encoding, Manifest, Method, StaticForm, TensorSpec
from mobilepack.contract.run_plan import Generate, RunPlan, Teacher, Time
from mobilepack.contract.run_result import RunResult
from mobilepack.models.families.registry import family_of
from mobilepack.models.spec import DecoderSpec, parameter_shapes
from mobilepack.models.static import (
    METHODS,
    StaticDecoder,
    StaticShape,
    input_names,
    static_decoder,
    windows_of,
)
from mobilepack.models.static_session import is_cache, static_methods
from mobilepack.models.weights import open_model
from mobilepack.models.zoo import embedded_path
from tests.matrix.cases import CASES
from tests.models.networks import RandomWeights, tiny_spec
from tests.packages import toy_package

CONTEXT, PREFILL = 48, 8
MASK = -4e4
_WINDOWS = {
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 5,
}


class Integers(nn.Module):
    """A decoder whose tensors are integers at the edge where they have codes; caches of 8 bits."""

    def __init__(self, decoder: StaticDecoder, names: Sequence[str], codes: Mapping[str, Encoding]):
        super().__init__()
        self.decoder, self.names, self.codes = decoder, names, codes

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Take and return what the manifest's integer methods say."""
        pairs = zip(self.names, inputs, strict=True)
        made = self.decoder(*(self._decoded(name, x) for name, x in pairs))
        results = ("logits", *(name for name in self.names if is_cache(name)))
        return tuple(self._encoded(name, x) for name, x in zip(results, made, strict=True))

    def _decoded(self, name: str, x: torch.Tensor) -> torch.Tensor:
        code = self.codes.get(name)
        if code is None:
            return x
        return torch.ops.quantized_decomposed.dequantize_per_tensor(
            x, code.scale, code.zero_point, 0, _top(name), _kind_of(name)
        )

    def _encoded(self, name: str, x: torch.Tensor) -> torch.Tensor:
        code = self.codes.get(name)
        if code is None:
            return x
        return torch.ops.quantized_decomposed.quantize_per_tensor(
            x, code.scale, code.zero_point, 0, _top(name), _kind_of(name)
        )


def static_package(
    root: Path,
    spec: DecoderSpec,
    weights: Mapping[str, torch.Tensor],
    *,
    integers: bool = False,
    bytes_alone: bool = False,
    delegate: bool = True,
    by_rows: bool = True,
) -> Path:
    """Write a package: `prefill` of 8 tokens and `decode`, a cache of 47 positions.

    Args:
        root: Its folder.
        spec: A plain model.
        weights: By parameter.
        integers: Masks, caches and logits as integers.
        bytes_alone: Of these the caches alone, as programs that Java calls have it.
        delegate: To XNNPACK; else every operator is one of the portable kernels.
        by_rows: Whether the program takes the last cache as it lies in memory, or channels last.
    """
    _register_kernels()
    names = input_names(spec)
    codes = _codes(names) if integers else {}
    if bytes_alone:
        codes = {name: code for name, code in codes.items() if is_cache(name)}
    modules: dict[str, nn.Module] = {}
    inputs: dict[str, tuple[torch.Tensor, ...]] = {}
    shapes: dict[str, list[tuple[tuple[int, ...], str]]] = {}
    made: dict[str, list[tuple[tuple[int, ...], str]]] = {}
    for name, tokens in zip(METHODS, (PREFILL, 1), strict=True):
        decoder = static_decoder(
            spec, StaticShape(tokens, CONTEXT, CONTEXT - 1, linear="linear"), weights
        )
        inputs[name] = decoder.example(MASK)
        shapes[name] = [_kind(t) for t in inputs[name]]
        with torch.no_grad():
            made[name] = [_kind(t) for t in decoder(*inputs[name])]
        modules[name] = decoder
        if integers:
            pairs = zip(names, inputs[name], strict=True)
            inputs[name] = tuple(_integers(n, t, codes.get(n)) for n, t in pairs)
            modules[name] = Integers(decoder, names, codes)
        if not by_rows:
            *others, last = inputs[name]
            inputs[name] = (*others, last.contiguous(memory_format=torch.channels_last))
    methods = static_methods(names, shapes, made)
    form = StaticForm(
        past=CONTEXT - 1, prefill_tokens=PREFILL, mask_value=MASK, windows=windows_of(spec)
    )
    toy_package(root)
    _lower(root / "model.pte", modules, inputs, delegate)
    described = tuple(_in_integers(method, codes) for method in methods)
    _describe(root / "manifest.json", form, described, "xnnpack" if delegate else "portable")
    return root


def random_static_package(root: Path, spec: DecoderSpec, **options: bool) -> Path:
    """Write a package of a model with random weights; see `static_package`."""
    return static_package(root, spec, RandomWeights(spec), **options)


def embedded_static_package(root: Path) -> Path:
    """Write a package of the embedded model in float32; see `static_package`."""
    model = open_model(embedded_path())
    try:
        weights = {name: model.weights.tensor(name) for name in parameter_shapes(model.spec)}
        return static_package(root, model.spec, weights)
    finally:
        model.close()


Packages = Callable[[str], Path]
WITHOUT_WARNINGS = (  # of ExecuTorch's exporter and lowering
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
)


@pytest.fixture(scope="session")
def static_packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Return what gives a package by its kind, lowered when it is first asked for.

    `embedded`; and two layers with random weights: `windows` (a full one and one of 5 tokens),
    `integers` (window of 5, integers at the edge), `bytes` (likewise, the caches alone),
    `portable` (likewise in floats, no delegate),
    `turned` (likewise, the last cache stored channels last).
    """
    root = tmp_path_factory.mktemp("static")

    @functools.cache
    def get(kind: str) -> Path:
        if kind == "embedded":
            return embedded_static_package(root / kind)
        if kind == "windows":
            case = next(case for case in CASES if case.name == "gemma3")
            config = {**case.keys, **_WINDOWS, "model_type": case.model_type}
            return random_static_package(root / kind, family_of(config).read(config))
        options = {
            "integers": kind in ("integers", "bytes"),
            "bytes_alone": kind == "bytes",
            "delegate": kind in ("integers", "bytes"),
            "by_rows": kind != "turned",
        }
        return random_static_package(root / kind, tiny_spec("mistral"), **options)

    return get


def static_plan(package: Path) -> RunPlan:
    """Return a plan of every kind of item: 42 rows, prompts of several calls, the last position."""
    methods = Manifest.read(package / "manifest.json").methods
    vocabulary = methods[0].outputs[0].shape[-1]
    ids = tuple(int(i) for i in np.random.default_rng(0).integers(0, vocabulary, CONTEXT))
    items = (
        Teacher(name="prefill, then decode", token_ids=ids, calls=(8, 7, 1, 1, 5, 8, *(1,) * 18)),
        Teacher(name="to the last position", token_ids=ids, calls=(8,) * 6),
        Teacher(name="one by one", token_ids=ids[::-1], calls=(1,) * 12),
        Generate(name="in three calls", token_ids=ids[:19], max_new_tokens=9),
        Time(name="times", token_ids=ids, n_prompt=17, n_gen=3, n_depth=9, repetitions=2),
    )
    return RunPlan(
        max_seq_len=CONTEXT,
        prefill_chunk=PREFILL,
        threads=1,
        sample_ids=tuple(range(0, vocabulary, 4)),
        items=items,
    )


def check_same_rows(ours: RunResult, theirs: RunResult) -> None:
    """Check row by row: rms/std within 1e-5, the ladder's limit for fp32; and the same text."""
    assert len(ours.rows) == len(theirs.rows) == 24 + 6 + 12
    for a, b in zip(ours.rows, theirs.rows, strict=True):
        assert (a.item, a.position, a.call_tokens) == (b.item, b.position, b.call_tokens)
        x, y = np.array(a.sampled), np.array(b.sampled)
        assert y.std() > 0
        assert np.sqrt(((x - y) ** 2).mean()) <= 1e-5 * y.std()
        assert a.top_ids[0] == b.top_ids[0]
    assert [one.token_ids for one in ours.generated] == [one.token_ids for one in theirs.generated]


def _register_kernels() -> None:
    import executorch.exir.passes._quant_patterns_and_replacements
    import executorch.kernels.quantized  # noqa: F401  torch.ops.quantized_decomposed


def _lower(
    path: Path,
    modules: Mapping[str, nn.Module],
    inputs: Mapping[str, tuple[torch.Tensor, ...]],
    delegate: bool,
) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    programs: Any = {
        name: torch.export.export(module, inputs[name], strict=False)
        for name, module in modules.items()
    }
    edge = to_edge_transform_and_lower(
        programs,
        partitioner=[XnnpackPartitioner()] if delegate else [],
        compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
    )
    with path.open("wb") as file:
        edge.to_executorch().write_to_file(file)


def _describe(path: Path, form: StaticForm, methods: tuple[Method, ...], backend: str) -> None:
    manifest = Manifest.read(path)
    plan = manifest.plan.model_copy(update={"backend": backend, "max_seq_len": CONTEXT})
    change = {"plan": plan, "plan_id": content_id(plan), "static": form, "methods": methods}
    path.write_text(manifest.model_copy(update=change).to_json())


def _codes(names: Sequence[str]) -> dict[str, Encoding]:
    """Return encodings that hold the values of a small net with random weights."""
    codes = {n: Encoding(scale=-MASK / 65535, zero_point=65535) for n in names if n[0] == "m"}
    codes |= {n: Encoding(scale=6 / 128, zero_point=128) for n in names if is_cache(n)}
    return codes | {"logits": Encoding(scale=8 / 32768, zero_point=32768)}


def _in_integers(method: Method, codes: Mapping[str, Encoding]) -> Method:
    """Describe what has an encoding as the integers that it is."""

    def coded(spec: TensorSpec) -> TensorSpec:
        code = codes.get(spec.name)
        kind = spec.dtype if code is None else str(_kind_of(spec.name)).removeprefix("torch.")
        return spec.model_copy(update={"dtype": kind, "encoding": code})

    inputs, outputs = (tuple(map(coded, specs)) for specs in (method.inputs, method.outputs))
    return method.model_copy(update={"inputs": inputs, "outputs": outputs})


def _integers(name: str, t: torch.Tensor, code: Encoding | None) -> torch.Tensor:
    return t if code is None else torch.full(t.shape, code.zero_point).to(_kind_of(name))


def _top(name: str) -> int:
    return 255 if is_cache(name) else 65535


def _kind_of(name: str) -> torch.dtype:
    return torch.uint8 if is_cache(name) else torch.uint16


def _kind(t: torch.Tensor) -> tuple[tuple[int, ...], str]:
    return tuple(t.shape), str(t.dtype).removeprefix("torch.")
