"""Every verb that takes a model takes a GGUF file; the package proves itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.commands.answering import answering
from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.evaluate import EvalOptions, evaluate
from mobilepack.commands.inspect import CheckpointView, inspect
from mobilepack.commands.plan import plan
from mobilepack.commands.verify import verify
from mobilepack.contract.package import open_package
from mobilepack.errors import MissingError
from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.zoo import embedded_path
from mobilepack.pipeline.compression_options import CompressionChoices
from mobilepack.pipeline.plan import Choices
from tests.models.gguf.cases import paired
from tests.models.gguf.vocabulary import embedded_metadata
from tests.models.gguf.writing import write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded model in Q8_0, with its vocabulary."""
    out = tmp_path_factory.mktemp("embedded")
    more = embedded_metadata()
    return write(embedded_path(), out, "llama", "Q8_0", paired, more).gguf


def test_inspect_shows_the_types_and_where_the_file_is(model: Path) -> None:
    view = inspect(str(model))
    assert isinstance(view, CheckpointView)
    assert view.dtypes == ("F32", "Q8_0")
    assert view.source == str(model)
    assert view.folder == model.parent
    assert view.spec.family == "llama"
    assert view.chat_template
    # 34 bytes for 32 numbers, and norms in float32.
    stored = sum(part.bytes for part in view.components)
    assert stored == pytest.approx(view.parameters * 34 / 32, rel=0.005)


def test_plan_predicts_what_the_original_would_give(model: Path) -> None:
    (found,), (original,) = (plan(BuildOptions(model=m)) for m in (str(model), None))
    assert (found.parameters, found.components) == (original.parameters, original.components)


def test_a_file_without_a_vocabulary_is_refused_by_its_name(tmp_path: Path) -> None:
    bare = write(embedded_path(), tmp_path, "llama", "Q8_0", paired).gguf
    with pytest.raises(MissingError) as caught:
        build(BuildOptions(model=str(bare), out=tmp_path / "out"))
    assert caught.value.code == "no-tokenizer"
    assert str(bare) in caught.value.what


@pytest.mark.slow
def test_a_package_of_a_gguf_file_verifies_and_answers(model: Path, tmp_path: Path) -> None:
    choices = Choices(max_seq_len=128, prefill_chunk=64)
    (built,) = build(BuildOptions(model=str(model), out=tmp_path, choices=choices))
    names = {entry.path for entry in built.manifest.files}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "model.pte"} <= names
    assert built.manifest.plan.model.source == str(model)
    assert built.manifest.licence.name == "apache-2.0"
    verify(built.folder).raise_if_failed()
    original = Tokenizer.open(embedded_path())
    text = "The quick brown fox: 42 Übungen, 한국어!"
    assert Tokenizer.open(built.folder).encode(text) == original.encode(text)
    with answering(open_package(built.folder), threads=1, timeout_s=300) as found:
        text, _ = found.answer(found.prompt("What is 7 + 5?"), 8)
    assert "12" in text
    assert evaluate(built.folder, EvalOptions(tasks=("pocket",), threads=1)).evaluation.tasks
    again = build(BuildOptions(model=str(model), out=tmp_path, choices=choices))
    assert again[0].up_to_date


@pytest.mark.slow
def test_a_gguf_file_is_pruned_and_calibrated_like_a_checkpoint(
    model: Path, tmp_path: Path
) -> None:
    compression = CompressionChoices(prune=("layers:3-4",), calibrate="hqq")
    choices = Choices(max_seq_len=128, prefill_chunk=64, compression=compression)
    (built,) = build(BuildOptions(model=str(model), out=tmp_path, choices=choices))
    assert built.manifest.compression is not None
    verify(built.folder).raise_if_failed()
