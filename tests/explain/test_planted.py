"""Every planted fault is found: stage, layer, operator and cause; a clean package has none."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilepack.backends.xnnpack.attention import Attention, Call, Positions
from mobilepack.backends.xnnpack.attention_flat import FlatAttention
from mobilepack.backends.xnnpack.graph import Graph
from mobilepack.backends.xnnpack.layout import Layout, Matrix, filled
from mobilepack.backends.xnnpack.lowered import Lowered
from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.explain import explain
from mobilepack.commands.verify import Ladder, VerifyOptions, VerifyResult
from mobilepack.contract.explanation import Explanation
from mobilepack.harness.host import HostHarness
from mobilepack.models.source import Source
from mobilepack.models.spec import DecoderSpec
from mobilepack.pipeline.plan import Choices
from mobilepack.target import targets_folder
from tests.explain.faults import Changed, Plant, plant, sign
from tests.models.checkpoints import make_checkpoint

pytestmark = pytest.mark.slow
LAYERS = 4


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return good packages of one tiny model: fp32, 8da4w, and fp32 with a GELU."""
    root = tmp_path_factory.mktemp("good")
    plain = make_checkpoint(root / "llama", num_hidden_layers=LAYERS)
    gelu = make_checkpoint(root / "gelu", num_hidden_layers=LAYERS, hidden_act="gelu")
    made = {
        "fp32": (plain, Choices(linear="fp32", max_seq_len=64, prefill_chunk=16)),
        "8da4w": (plain, Choices(linear="8da4w", max_seq_len=64, prefill_chunk=16)),
        "gelu": (gelu, Choices(linear="fp32", max_seq_len=64, prefill_chunk=16)),
    }
    return {
        name: build(BuildOptions(str(model), out=root / name, choices=choices))[0].folder
        for name, (model, choices) in made.items()
    }


def _explained(package: Path) -> tuple[VerifyResult, Explanation]:
    options = VerifyOptions(threads=1, exported="never", questions=0, decode_steps=8)
    ladder = Ladder(package, options)
    result = explain(ladder, ladder.on(HostHarness()))
    assert result.explanation is not None
    assert Explanation.read(result.folder / "explanation.json") == result.explanation
    return result, result.explanation


def _weights(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    def changed(weights: Source) -> Source:
        return Changed(weights, name, change)

    return Plant(weights=changed)


def _swapped(one: int, other: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(weight: torch.Tensor) -> torch.Tensor:
        heads = weight.unflatten(0, (-1, 16)).clone()
        heads[[one, other]] = heads[[other, one]]
        return heads.flatten(0, 1)

    return change


def _every_mixer(**changes: Any) -> Plant:
    def spec(of: DecoderSpec) -> DecoderSpec:
        layers = []
        for layer in of.layers:
            rope = dataclasses.replace(layer.mixer.rope, **changes)  # type: ignore[union-attr,type-var]
            mixer = dataclasses.replace(layer.mixer, rope=rope)  # type: ignore[call-arg]
            layers.append(dataclasses.replace(layer, mixer=mixer))
        return dataclasses.replace(of, layers=tuple(layers))

    return Plant(spec=spec)


def _tanh(of: DecoderSpec) -> DecoderSpec:
    layers = tuple(
        dataclasses.replace(layer, ffn=dataclasses.replace(layer.ffn, activation="gelu_tanh"))  # type: ignore[type-var]
        for layer in of.layers
    )
    return dataclasses.replace(of, layers=layers)


class _Layer:
    """Counts the attentions of a branch, to change one of them."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, -1

    def now(self) -> bool:
        self.seen += 1
        return self.seen % LAYERS == self.at


def _without_keys(patch: pytest.MonkeyPatch) -> None:
    """The third layer's keys are never written."""
    layer, whole = _Layer(2), FlatAttention.write_cache

    def write(self: FlatAttention, call: Call, positions: Positions) -> None:
        if not layer.now():
            whole(self, call, positions)
            return
        program = self.program
        args = (call.value, call.caches[1], positions.start, self._written, self._written)
        program.kernel("llama::update_cache", "out", *args)

    patch.setattr(FlatAttention, "write_cache", write)


def _late_slot(patch: pytest.MonkeyPatch) -> None:
    """When the second layer decodes, it writes one slot too far on (but for the very last slot)."""
    layer, whole = _Layer(1), FlatAttention.write_cache

    def write(self: FlatAttention, call: Call, positions: Positions) -> None:
        decodes = layer.seen >= LAYERS - 1
        if not (layer.now() and decodes):
            whole(self, call, positions)
            return
        program = self.program
        one, limit = program.integer(1), program.integer(self.lengths.context)
        after, over, slot = (program.scalar_output() for _ in range(3))
        program.kernel("executorch_prim::add", "Scalar", positions.start, one, after)
        program.kernel("executorch_prim::floordiv", "Scalar", after, limit, over)
        program.kernel("executorch_prim::sub", "Scalar", after, over, slot)
        whole(self, call, Positions(slot, positions.end))

    patch.setattr(FlatAttention, "write_cache", write)


def _sees_ahead(patch: pytest.MonkeyPatch) -> None:
    """Every query of a prefill sees the token after it."""

    def mask(self: Attention, layout: Layout, window: int) -> Graph:
        graph, lengths = Graph(layout), self.lengths
        rows, columns = graph.input([lengths.sequence]), graph.input([lengths.context])
        out = graph.output([lengths.sequence, lengths.context])
        rows = graph.reshape(rows, [0, 1], [lengths.sequence, 1])
        one = graph.operand(filled(1, 1.0), [1])
        ahead = graph.binary("subtract", graph.binary("subtract", columns, rows), one)
        graph.scaled(graph.clamp(ahead, 0.0, 1.0), -1e9, out)
        return graph

    patch.setattr(Attention, "_mask_graph", mask)


def _scaled_group(path: Path, lowered: Lowered) -> None:
    """Multiply the scale of row 5, group 1 of a matrix by 16 in the file."""
    (region,) = (
        region
        for region in lowered.layout.regions
        if isinstance(region.content, Matrix)
        and (region.content.parameter, region.content.part) == ("layers.1.up.weight", "scales")
    )
    at = len(lowered.head) + region.offset + 2 * (5 * 2 + 1)  # hidden 64: two groups of 32 a row
    with path.open("r+b") as file:
        file.seek(at)
        (bits,) = struct.unpack("<H", file.read(2))
        file.seek(at)
        file.write(struct.pack("<H", bits + (4 << 7)))  # bf16: seven bits of mantissa


PLANTED: dict[str, tuple[str, Plant, dict[str, str]]] = {
    "a wrong rope factor": (
        "fp32",
        Plant(tables=lambda tables: {n: _squeezed(t, n) for n, t in tables.items()}),
        {"layer": "layers.0", "operator": "rope", "cause": "wrong-rope-factor", "text": "0.25"},
    ),
    "a wrong rope base": (
        "8da4w",
        _every_mixer(theta=500000.0),
        {"layer": "layers.0", "operator": "rope", "cause": "wrong-rope-base", "text": "5e+05"},
    ),
    "a transposed weight": (
        "8da4w",
        _weights("layers.2.o.weight", lambda w: w.T.contiguous()),
        {
            "layer": "layers.2",
            "operator": "linear",
            "parameter": "layers.2.o.weight",
            "cause": "transposed-weight",
        },
    ),
    "a swapped head": (
        "fp32",
        _weights("layers.1.q.weight", _swapped(1, 3)),
        {
            "layer": "layers.1",
            "operator": "linear",
            "parameter": "layers.1.q.weight",
            "cause": "swapped-heads",
            "text": "heads 1 and 3",
        },
    ),
    "tanh for erf GELU": (
        "gelu",
        Plant(spec=_tanh),
        {
            "layer": "layers.0",
            "operator": "gelu",
            "cause": "wrong-activation",
            "text": "tanh form, and the model has GELU in its erf form",
        },
    ),
    "a dropped state write": (
        "fp32",
        Plant(lowering=_without_keys),
        {
            "layer": "layers.2",
            "operator": "attention",
            "cause": "dropped-write",
            "text": "new keys are not written",
        },
    ),
    "a stale KV slot": (
        "fp32",
        Plant(lowering=_late_slot),
        {
            "layer": "layers.1",
            "operator": "attention",
            "cause": "stale-slot",
            "text": "one slot too far on, so that a stale slot is read in calls of one token",
        },
    ),
    "an off-by-one mask": (
        "fp32",
        Plant(lowering=_sees_ahead),
        {
            "layer": "layers.0",
            "operator": "attention",
            "cause": "mask-off-by-one",
            "text": "the token after it",
        },
    ),
    "a saturated fp16 activation": (
        "huge",
        Plant(kv_cache="fp16"),
        {"layer": "layers.1", "operator": "attention", "cause": "fp16-saturation", "text": "65504"},
    ),
    "a mis-scaled int4 group": (
        "8da4w",
        Plant(file=_scaled_group),
        {
            "layer": "layers.1",
            "operator": "linear",
            "parameter": "layers.1.up.weight",
            "cause": "mis-scaled-group",
            "text": "row 5, group 1 (columns 32 to 63) is 16",
        },
    ),
}


def _squeezed(table: torch.Tensor, name: str) -> torch.Tensor:
    """Return a rotary table whose positions advance by a quarter, as linear scaling by 4 does."""
    angles = torch.arange(len(table))[:, None] / 4 * _frequencies(table.shape[1])
    return angles.cos() if "cos" in name else angles.sin()


def _frequencies(half: int) -> torch.Tensor:
    return 10000.0 ** (-torch.arange(half) / half)


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a good fp32 package of a model with values beyond half precision's largest."""
    from safetensors.torch import load_file, save_file

    root = tmp_path_factory.mktemp("huge")
    folder = make_checkpoint(root / "llama", num_hidden_layers=LAYERS)
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    prefix = "model.layers.1.self_attn."
    weights[prefix + "v_proj.weight"] *= 1e6
    weights[prefix + "o_proj.weight"] /= 1e6
    save_file(weights, path, metadata={"format": "pt"})
    choices = Choices(linear="fp32", max_seq_len=64, prefill_chunk=16)
    return build(BuildOptions(str(folder), out=root / "out", choices=choices))[0].folder


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named(
    name: str, packages: dict[str, Path], huge: Path, tmp_path: Path
) -> None:
    base, fault, wanted = PLANTED[name]
    bad = plant(packages.get(base, huge), tmp_path / "bad", fault)
    result, found = _explained(bad)
    assert not result.parity.passed, "verify itself does not see it"
    assert (found.outcome, found.stage) == ("found", "lowering"), found
    for key, value in wanted.items():
        assert value in str(getattr(found, key)), found
    assert found.explained > 0.8
    assert found.remedy
    assert 1 <= found.probes <= 3
    good = [g for g in found.growth if g.error <= g.limit]
    assert all(g.layer < found.layer or g.layer == "embedding" for g in good), found.growth


def test_clean_packages_have_no_culprit(packages: dict[str, Path], huge: Path) -> None:
    for package in (*packages.values(), huge):
        result, found = _explained(package)
        assert result.passed
        assert (found.outcome, found.stage, found.cause) == ("no divergence", None, ""), found
        assert found.differences == ()
        assert all(growth.error <= growth.limit for growth in found.growth)
        assert found.growth[-1].layer == "head"


def test_a_wrong_chat_template_is_named(packages: dict[str, Path], tmp_path: Path) -> None:
    bad = plant(packages["fp32"], tmp_path / "bad", Plant())
    name = next(n for n in ("chat_template.jinja", "tokenizer_config.json") if (bad / n).is_file())
    text = (bad / name).read_text()
    (bad / name).write_text(text.replace("<|im_start|>assistant", "<|im_start|>model"))
    assert (bad / name).read_text() != text
    sign(bad, name)
    result, found = _explained(bad)
    assert result.parity.passed  # no rung renders a chat
    assert not result.passed
    assert (found.stage, found.cause) == ("tokenizer", "wrong-chat-template")
    assert "model" in found.text


def test_another_tokenizer_is_named(packages: dict[str, Path], tmp_path: Path) -> None:
    bad = plant(packages["fp32"], tmp_path / "bad", Plant())
    tokenizer = json.loads((bad / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:5]
    (bad / "tokenizer.json").write_text(json.dumps(tokenizer))
    sign(bad, "tokenizer.json")
    _, found = _explained(bad)
    assert (found.stage, found.cause) == ("tokenizer", "wrong-tokenizer")


def test_without_its_checkpoint_nothing_is_claimed(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    bad = plant(packages["fp32"], tmp_path / "bad", Plant())
    manifest = (bad / "manifest.json").read_text()
    model = next(iter(packages.values())).parents[1] / "llama"
    # the plan id would no longer fit: move the checkpoint away instead
    away = model.rename(tmp_path / "away")
    try:
        _, found = _explained(bad)
    finally:
        away.rename(model)
    assert manifest == (bad / "manifest.json").read_text()
    assert found.outcome == "not run"
    assert "is gone" in found.reason


def test_a_recipe_that_is_too_coarse_is_no_fault_of_the_lowering(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    limits = tmp_path / "mine.toml"
    text = (targets_folder() / "xnnpack.toml").read_text()
    limits.write_text(text.replace("max_ppl_ratio = 2.0", "min_sqnr_db = 60.0"))
    options = VerifyOptions(threads=1, exported="never", questions=0, limits=limits)
    ladder = Ladder(packages["8da4w"], options)
    result = explain(ladder, ladder.on(HostHarness()))
    found = result.explanation
    assert found is not None
    assert result.parity.culprit == "eager quantised"
    assert (found.stage, found.operator, found.cause) == ("quantisation", "linear", "coarse-recipe")
    assert found.parameter.startswith("layers.")
    errors = [growth.error for growth in found.growth]
    assert errors[0] < errors[-1] < 1
