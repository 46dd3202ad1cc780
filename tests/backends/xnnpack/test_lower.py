"""The lowered program before and in its file: sound, complete, repeatable, and never half fp32."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilepack.backends.xnnpack.emit import Observer, ProgramFile, fill
from mobilepack.backends.xnnpack.layout import Matrix
from mobilepack.models.spec import DecoderSpec
from tests.backends.xnnpack.conftest import Models, Programs, Written
from tests.backends.xnnpack.programs import FP32_RECIPE, RECIPES, Tiny
from tests.backends.xnnpack.test_layout import assert_sound
from tests.models.networks import FAMILIES

pytestmark = pytest.mark.slow

MAGIC = slice(4, 8)  # of a flatbuffer: the file identifier, `ET12` in executorch 1.5.1
EXTENDED_HEADER = slice(8, 12)


def segment(made: Written, key: str) -> bytes:
    """Return the bytes of a named segment."""
    start, size = made.lowered.layout.segments[made.lowered.layout.named[key]]
    start += len(made.lowered.head)
    return made.path.read_bytes()[start : start + size]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_files_are_sound(program: Programs, family: str, recipe: str) -> None:
    made = program(family, recipe)
    data, head = made.path.read_bytes(), made.lowered.head
    assert data[MAGIC].startswith(b"ET")
    assert data[EXTENDED_HEADER] == b"eh00"
    assert data.startswith(head)
    assert len(head) % 4096 == 0  # segments are mapped into memory by whole pages
    assert len(data) == len(head) + made.lowered.layout.size
    assert_sound(made.lowered.layout)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_in_the_file_in_the_recipes_format(
    program: Programs, family: str, recipe: str
) -> None:
    made = program(family, recipe)
    stored = {getattr(r.content, "parameter", None) for r in made.lowered.layout.regions}
    tied = {"head.weight"} if made.model.spec.tied_head else set()
    assert set(made.model.weights) - tied <= stored
    matrices = [r.content for r in made.lowered.layout.regions if isinstance(r.content, Matrix)]
    plain = {content.encoding for content in matrices} == {"fp32"}
    assert plain == (recipe == "fp32")
    if not plain:
        assert "fp32" not in {content.encoding for content in matrices}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_tally_counts_what_is_stored(program: Programs, recipe: str) -> None:
    made = program("qwen3", recipe, tie_word_embeddings=False)
    rows = made.lowered.tally.rows
    assert sum(count for count, _ in rows.values()) == sum(
        tensor.numel() for tensor in made.model.weights.values()
    )
    contents = [
        (r.size, getattr(r.content, "parameter", None)) for r in made.lowered.layout.regions
    ]
    assert sum(size for _, size in rows.values()) == sum(size for size, name in contents if name)


def test_a_tied_fp32_head_is_the_embeddings_own_bytes(program: Programs) -> None:
    tied, untied = (program("qwen3", "fp32", tie_word_embeddings=t) for t in (True, False))
    table = tied.model.weights["embed.weight"]
    assert segment(tied, "head.weight") == table.numpy().tobytes()
    embedding = next(
        r
        for r in tied.lowered.layout.regions
        if getattr(r.content, "parameter", "") == "embed.weight"
    )
    start, size = tied.lowered.layout.segments[tied.lowered.layout.named["head.weight"]]
    assert (start, size) == (embedding.offset, embedding.size)
    saved = untied.path.stat().st_size - tied.path.stat().st_size
    assert abs(saved - 4 * table.numel()) < 8192


def test_lowering_and_writing_again_gives_the_same_bytes(model: Models, tmp_path: Path) -> None:
    made = model("qwen2")
    for recipe in (FP32_RECIPE, RECIPES["8da4w+4w"]):
        fresh = Tiny(made.spec, made.context, made.chunk)
        one = made.write(made.lower(recipe), tmp_path / "one.pte")
        two = fresh.write(fresh.lower(recipe), tmp_path / "two.pte")
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_a_resumed_file_is_the_same_whatever_was_done(
    program: Programs, seed: int, tmp_path: Path
) -> None:
    made, chosen = program("qwen2", "8da4w+4w"), random.Random(seed)
    done: set[int] = set()
    path = tmp_path / "model.pte"
    stop = chosen.randrange(len(made.lowered.layout.regions))

    class StoppedError(Exception):
        pass

    def region(index: int) -> None:
        if index >= stop:
            raise StoppedError
        done.add(index)

    file = ProgramFile(path, len(made.lowered.head))
    with pytest.raises(StoppedError):
        fill(file, made.lowered.layout, made.model.sources(), Observer(on_region=region))
    file.close()
    made.model.write(made.lowered, path, Observer(frozenset(done)))
    assert path.read_bytes() == made.path.read_bytes()


def cache_bytes(spec: DecoderSpec, context: int) -> int:
    return sum(2 * 4 * context * layer.mixer.kv_size for layer in spec.layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_memory_is_split_into_cache_and_activations(program: Programs, family: str) -> None:
    made = program(family, "fp32")
    assert made.lowered.state_bytes == cache_bytes(made.model.spec, made.model.context)
    assert made.lowered.activation_bytes > 4 * made.model.spec.vocab_size
    assert made.lowered.workspace_bytes > 0


def test_only_cache_and_embedding_run_outside_the_delegate(program: Programs) -> None:
    for recipe in RECIPES:
        made = program("qwen3", recipe)
        heavy = ("linear", "mm", "softmax", "mul", "sigmoid", "rsqrt", "mean", "sin", "cos")
        names = {name.split("::")[1] for name in made.lowered.kernel_calls}
        assert not names.intersection(heavy)
        assert made.lowered.delegates >= len(made.model.spec.layers) + 1
        assert made.lowered.operators > 20 * len(made.model.spec.layers)


def test_an_operator_without_a_rule_is_named() -> None:
    import torch.nn as nn

    from mobilepack.backends.xnnpack.lower import Lowering
    from mobilepack.backends.xnnpack.operands import UnknownGraphError

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(8, 8)

        def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(self.embed(tokens), -1)

    example = (torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    exported = torch.export.export(Odd().requires_grad_(False), example)
    with pytest.raises(UnknownGraphError, match="cumsum"):
        Lowering(exported, FP32_RECIPE, {}, 8).run({})


IMPORTS: tuple[tuple[str, ...], ...] = (
    ("import mobilepack.backends.xnnpack.lower",),
    ("import mobilepack.backends.xnnpack.segments",),
    (
        "import mobilepack.backends.xnnpack.vendor as v",
        "import sys; assert 'executorch.exir' not in sys.modules",
        "import executorch.exir; assert hasattr(executorch.exir, 'to_edge_transform_and_lower')",
        "assert v.et is sys.modules['executorch.exir.schema']",
    ),
)


@pytest.mark.parametrize("lines", IMPORTS, ids=lambda lines: lines[0].split(".")[-1])
def test_modules_can_be_imported_first(lines: Iterable[str]) -> None:
    """In any order, and without leaving ExecuTorch's own packages half imported."""
    command: list[Any] = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
