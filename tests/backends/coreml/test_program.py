"""Our own programs as others read them: coremltools' loader, ExecuTorch's extractor, the lint."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mobilepack.backends.coreml.package import write_packages
from mobilepack.backends.coreml.program_file import write_program_file
from mobilepack.mil.delegates import Delegates
from mobilepack.mil.lint.run import lint_program
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.mil.program import Program
from mobilepack.mil.pte import DelegateCall, open_pte
from tests.backends.coreml.programs import PAST, wanted
from tests.mil.convert import silent
from tests.mil.single import coremltools
from tests.models.networks import RandomWeights, tiny_spec

FORMS: dict[str, dict[str, Any]] = {
    "fp16": {},
    "8w": {"linear": "8w"},
    "4w": {"linear": "4w"},
    "4p": {"linear": "4p"},
    "states": {"states": True},
    "ios17": {"linear": "8w", "opset": "CoreML7", "functions": False},
    "ios26": {"linear": "4w", "opset": "CoreML9"},
    "cut": {"limit_bytes": 1},
}


def packages(folder: Path, family: str = "llama", **how: Any) -> list[Path]:
    spec = tiny_spec(family, tie_word_embeddings=True)
    written = write_packages(spec, RandomWeights(spec), wanted(**how), folder)
    return [folder / name for name in written.packages]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_coremltools_loads_every_operator_with_the_types_that_we_declare(
    form: str, tmp_path: Path
) -> None:
    """Its loader checks every argument and infers every type again."""
    ct, _, _ = coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load

    for path in packages(tmp_path, **FORMS[form]):
        with silent():
            model = ct.models.MLModel(str(path), skip_model_load=True)
            spec = model.get_spec()
            loaded = load(spec, spec.specificationVersion, model.weights_dir)
            loaded.validate()
        for name, function in open_mlpackage(path).functions.items():
            ours = Counter(op.type for op in function.block.operations)
            theirs = Counter(op.op_type for op in loaded.functions[name].operations)
            theirs["read_state"] += theirs["coreml_update_state"]
            theirs["write_state"] += theirs.pop("coreml_update_state", 0)
            for kind in (ours | theirs).keys() - {"const"}:
                assert ours[kind] == theirs[kind], kind
            declared = {o.name: str(o.type) for op in function.block.operations for o in op.outputs}
            for op in loaded.functions[name].operations:
                for value in op.outputs:
                    if value.name in declared and op.op_type != "const":
                        sizes = ", ".join(map(str, value.shape))
                        assert declared[value.name].endswith(f"[{sizes}]"), value.name


def _rules(program: Program) -> set[str]:
    return {finding.rule for finding in lint_program(program)}


@pytest.mark.parametrize(
    ("form", "remaining"),
    [
        ("fp16", set()),
        ("8w", set()),
        ("4w", set()),
        ("4p", set()),
        ("ios17", set()),
        ("ios26", set()),
        ("cut", set()),
        ("states", {"ANE005", "ANE011", "ANE012"}),  # writes; and this cache is no multiple of 32
    ],
)
def test_the_lint_finds_nothing_that_can_be_avoided(
    form: str, remaining: set[str], tmp_path: Path
) -> None:
    # Heads of 32 channels and more are whole multiples of 64 bytes, as they are in real models.
    spec = tiny_spec("qwen3")
    how = wanted(**FORMS[form])
    written = write_packages(spec, RandomWeights(spec), how, tmp_path)
    found = {rule for name in written.packages for rule in _rules(open_mlpackage(tmp_path / name))}
    assert found == remaining - {"ANE012"}
    assert PAST % 32


@pytest.mark.slow
def test_only_a_cut_table_needs_an_operator_of_integers(tmp_path: Path) -> None:
    spec = tiny_spec("qwen3", vocab_size=32_768)
    write_packages(spec, RandomWeights(spec), wanted(), tmp_path)
    findings = lint_program(open_mlpackage(tmp_path / "model.mlpackage"))
    assert {(f.rule, f.operator) for f in findings} == {("ANE014", "mod"), ("ANE009", "conv")}


def program_file(folder: Path, **how: Any) -> Path:
    spec = tiny_spec("llama", tie_word_embeddings=True)
    asked = wanted(by_method=True, **how)
    parts = folder / "parts"
    parts.mkdir()
    written = write_packages(spec, RandomWeights(spec), asked, parts)
    path = folder / "model.pte"
    write_program_file(path, parts, written, asked.opset, {"get_max_seq_len": 8})
    shutil.rmtree(parts)
    return path


@pytest.mark.parametrize(
    ("how", "calls", "blobs"),
    [
        ({}, 1, 1),
        ({"limit_bytes": 1}, 4, 4),
        ({"opset": "CoreML7", "functions": False}, 1, 2),
    ],
    ids=["whole", "cut", "ios17"],
)
def test_nothing_runs_outside_the_delegates(
    how: dict[str, Any], calls: int, blobs: int, tmp_path: Path
) -> None:
    pte = open_pte(program_file(tmp_path, **how))
    assert set(pte.methods) == {"prefill", "decode", "get_max_seq_len"}
    for name in ("prefill", "decode"):
        method = pte.methods[name]
        assert len(method.instructions) == calls
        assert all(isinstance(step, DelegateCall) for step in method.instructions)
        assert {delegate.id for delegate in method.delegates} == {"CoreMLBackend"}
    assert len(Delegates(pte).packages()) == blobs


@pytest.mark.slow
def test_executorch_s_own_script_extracts_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    with silent():
        from executorch.examples.apple.coreml.scripts import extract_coreml_models

        extract_coreml_models.extract_coreml_models(path.read_bytes())
    found = sorted(tmp_path.rglob("model.mlpackage"))
    assert found
    for package in found:
        assert set(open_mlpackage(package).functions) == {"prefill", "decode"}
