"""Plans for ONNX Runtime, and (slow) a whole build: verified, and read by ONNX Runtime GenAI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.build import BuildOptions, build, plan
from mobilepack.commands.plan import plan as predict
from mobilepack.commands.verify import VerifyOptions, verify
from mobilepack.contract.package import open_package
from mobilepack.contract.reference import Reference
from mobilepack.errors import UsageError
from mobilepack.pipeline.plan import Choices

ONNX = ("onnx",)


def planned(**choices: Any) -> Any:
    (made,) = plan(BuildOptions(targets=ONNX, choices=Choices(**choices)))
    return made


def test_the_plan_is_fp32_throughout() -> None:
    recipe = planned().recipe
    assert (recipe.linear, recipe.embedding, recipe.kv_cache) == ("fp32", "fp32", "fp32")


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        ({"linear": "8da4w"}, "--recipe 8da4w"),
        ({"embedding": "4w"}, "--qembedding 4w"),
        ({"kv_cache": "int8", "group_size": 32}, "--kv-cache int8 --group-size 32"),
        ({"soc_model": "SM8650"}, "SM8650"),
    ],
)
def test_other_storage_is_refused(choices: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        planned(**choices)


@pytest.mark.slow
def test_a_built_package_is_verified_and_spoken_by_genai(tmp_path: Path) -> None:
    import onnxruntime_genai

    options = BuildOptions(targets=ONNX, out=tmp_path)
    (built,) = build(options)
    (guess,) = predict(options)
    package = open_package(built.folder)
    assert package.program_bytes == pytest.approx(guess.file_bytes, rel=0.01)
    found = verify(built.folder, VerifyOptions(decode_steps=8))
    assert found.parity.passed
    assert found.parity.recipe == "fp32"
    (greedy,) = Reference.read(package.reference).index.greedy
    model = onnxruntime_genai.Model(str(built.folder))
    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(max_length=len(greedy.prompt_ids) + len(greedy.token_ids))
    generator = onnxruntime_genai.Generator(model, params)
    generator.append_tokens(list(greedy.prompt_ids))
    while not generator.is_done():
        generator.generate_next_token()
    said = generator.get_sequence(0)[len(greedy.prompt_ids) :]
    # GenAI stops at the model's own end, our reference goes on
    assert tuple(said) == greedy.token_ids[: len(said)]
    assert len(said) >= min(4, len(greedy.token_ids))
