"""Decide what to build: one plan per target, whose hash names the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from mobilepack.contract.manifest import BuildPlan, Lowering, ModelIdentity, Recipe
from mobilepack.errors import UsageError
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.compression_options import (
    CompressionChoices,
    compression_for,
    text_sha256,
)
from mobilepack.pipeline.coreml_plan import (
    check_reference_lowering,
    check_states,
    coreml_recipe,
    ios_for,
    weight_limit_bytes,
)
from mobilepack.pipeline.plain import check_reference
from mobilepack.soc import Soc, load_soc
from mobilepack.target import RECIPES, Target
from mobilepack.version import exact_version

TOOLCHAIN = ("torch", "executorch", "torchao")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user asked for; None leaves it to the target.

    Attributes:
        linear: As in `Recipe`; so are the next three.
        max_seq_len: Positions of the KV cache.
        prefill_chunk: Longest run of tokens in one call.
        lowering: `fast`, or `reference` for ExecuTorch's own.
        compression: What is done to the weights.
        soc_model: The chip to compile for, for targets that are compiled for one.
        qnn_sdk: A QAIRT SDK of the user's own.
        ios: Least version of iOS, for Core ML.
        states: Keys and values in states, for Core ML.
        weight_limit_mb: Most weights of one Core ML program, MB.
    """

    linear: str | None = None
    group_size: int | None = None
    embedding: str | None = None
    kv_cache: str | None = None
    max_seq_len: int | None = None
    prefill_chunk: int | None = None
    lowering: Lowering = "fast"
    compression: CompressionChoices = field(default_factory=CompressionChoices)
    soc_model: str | None = None
    qnn_sdk: Path | None = None
    ios: int | None = None
    states: bool = False
    weight_limit_mb: int | None = None


def plan_build(model: LoadedModel, target: Target, choices: Choices) -> BuildPlan:
    """Resolve the choices against a target and a model.

    Raises:
        UsageError: Choices contradict each other, the model or the target.
    """
    max_seq_len, prefill_chunk = lengths_for(model.spec, target, choices)
    recipe = recipe_for(target, choices)
    soc = soc_for(target, choices)
    level = ios_for(target, choices)
    if level is not None:
        check_states(target, choices, level)
    if choices.lowering == "reference":
        check_reference(model.spec)
        if level is not None:
            check_reference_lowering(target, recipe, level)
    looks = target.backend == "qnn" and recipe.linear != "fp16"
    return BuildPlan(
        target=target_id(target, choices, soc),
        backend=target.backend,
        soc_model=None if soc is None else soc.model,
        ios=None if level is None else level.version,
        artefact=target.artefact,
        states=choices.states,
        weight_limit_bytes=None if level is None else weight_limit_bytes(choices, level),
        calibration_sha256=text_sha256(choices.compression.text) if looks else None,
        model=ModelIdentity(
            source=str(model.checkpoint.source),
            revision=model.checkpoint.revision,
            family=model.spec.family,
            fingerprint=model.checkpoint.fingerprint,
        ),
        recipe=recipe,
        max_seq_len=max_seq_len,
        prefill_chunk=prefill_chunk,
        lowering=choices.lowering,
        compression=compression_for(choices.compression, model.spec, recipe, reads_text=looks),
        toolchain=toolchain(),
    )


def soc_for(target: Target, choices: Choices) -> Soc | None:
    """Return the chip to compile for: the user's, else the target's; None where any will do.

    Raises:
        UsageError: The chip is unknown, or the target is not compiled for one.
    """
    if target.soc_model is None:
        if choices.soc_model is None:
            return None
        raise UsageError(
            "soc-of-any",
            f"cannot build {target.name} for the SoC {choices.soc_model}",
            why=f"a program of {target.backend} runs on every SoC",
            next="leave --soc-model out, or build for a target with a SoC: --target qnn",
        )
    return load_soc(choices.soc_model or target.soc_model)


def target_id(target: Target, choices: Choices, soc: Soc | None) -> str:
    """Return the name of the package's folder: the target's, with a SoC or iOS asked for."""
    if target.ios is not None:
        kind = "-pte" if target.artefact == "pte" else ""  # `coreml-ios26` is a target of its own
        level = f"{kind}-ios{choices.ios}" if choices.ios not in (None, target.ios) else ""
        return f"{target.name}{level}{'-states' if choices.states else ''}"
    if soc is None or choices.soc_model is None or soc.model == target.soc_model:
        return target.name
    return f"{target.name}-{soc.model}"


def toolchain() -> dict[str, str]:
    """Return the versions that decide a package's bytes."""
    return {"mobilepack": exact_version()} | {name: metadata.version(name) for name in TOOLCHAIN}


def recipe_for(target: Target, choices: Choices) -> Recipe:
    """Return the recipe: the user's choices over the target's.

    `fp32` linear layers bring an fp32 embedding and KV cache unless others are asked for: who says
    fp32 wants the reference.

    Raises:
        UsageError: Choices contradict each other.
    """
    linear = choices.linear or target.recipe.linear
    if linear not in RECIPES[target.backend]:
        raise UsageError(
            "recipe-of-another-backend",
            f"cannot build {target.name} with --recipe {linear}",
            why=f"{target.backend} has the recipes {', '.join(RECIPES[target.backend])}",
            next=f"choose one of them, or leave --recipe out for {target.recipe.linear_text}",
        )
    if target.backend == "qnn":
        return qnn_recipe(linear, target, choices)
    if target.backend == "coreml":
        return coreml_recipe(linear, target, choices)
    if target.backend == "onnx":
        return onnx_recipe(target, choices)
    if linear == "fp32" and choices.group_size:
        raise UsageError(
            "group-of-fp32",
            f"cannot store fp32 weights in groups of {choices.group_size}",
            why="--group-size says how many 4-bit weights share a scale; fp32 has none",
            next="leave --group-size out, or choose --recipe 8da4w",
        )
    same = linear == target.recipe.linear
    kv_cache = choices.kv_cache
    if choices.lowering == "reference" and kv_cache not in (None, "fp32"):
        raise UsageError(
            "cache-of-reference-lowering",
            f"cannot keep the KV cache in {kv_cache} with --lowering reference",
            why="ExecuTorch's own lowering keeps it in fp32",
            next="leave --kv-cache out, or use --lowering fast",
        )
    if kv_cache is None:
        kv_cache = target.recipe.kv_cache if same and choices.lowering == "fast" else "fp32"
    group = choices.group_size or (target.recipe.group_size if same else 32)
    embedding = choices.embedding or (target.recipe.embedding if same else "fp32")
    return Recipe.model_validate(
        {
            "linear": linear,
            "group_size": 0 if linear == "fp32" else group,
            "embedding": embedding,
            "kv_cache": kv_cache,
        }
    )


def onnx_recipe(target: Target, choices: Choices) -> Recipe:
    """Return the recipe for ONNX Runtime, which is fp32 throughout.

    Raises:
        UsageError: Other storage is asked for.
    """
    asked = {"qembedding": choices.embedding, "kv-cache": choices.kv_cache}
    wrong = [f"--{name} {value}" for name, value in asked.items() if value not in (None, "fp32")]
    wrong += [f"--group-size {choices.group_size}"] if choices.group_size else []
    if wrong:
        raise UsageError(
            "storage-of-onnx",
            f"cannot build {target.name} with {' '.join(wrong)}",
            why="it is the fp32 model throughout",
            next="leave that out; quantise the graph with onnxruntime's own tools if you need it",
        )
    return Recipe(linear="fp32", group_size=0, embedding="fp32", kv_cache="fp32")


def qnn_recipe(linear: str, target: Target, choices: Choices) -> Recipe:
    """Return the recipe for the NPU, where the linear layers decide embedding and cache.

    Raises:
        UsageError: Other storage is asked for, or half precision of a chip that has none.
    """
    half = linear == "fp16"
    fixed = {"embedding": "fp16" if half else "16w", "kv_cache": "fp16" if half else "int8"}
    for name, value in fixed.items():
        asked = getattr(choices, name)
        if asked not in (None, value):
            raise UsageError(
                "storage-of-qnn",
                f"cannot store the {name.replace('_', ' ')} in {asked} with --recipe {linear}",
                why=f"on the NPU it is {value} then",
                next=f"leave --{'q' if name == 'embedding' else ''}{name.replace('_', '-')} out",
            )
    soc = soc_for(target, choices)
    if half and soc is not None and not soc.fp16:
        raise UsageError(
            "no-half-precision",
            f"cannot build with --recipe fp16 for {soc.model}",
            why=f"the NPU of the {soc.title} (Hexagon V{soc.hexagon}) computes in integers only",
            next="choose --recipe 16a4w or 16a8w",
        )
    group = choices.group_size or 0
    if group:
        _check_blocks(linear, group, soc, choices)
    return Recipe.model_validate({"linear": linear, "group_size": group, **fixed})


def _check_blocks(linear: str, group: int, soc: Soc | None, choices: Choices) -> None:
    """Refuse 4-bit weights in blocks (LPBQ) where they cannot be."""
    whys = {
        "its weights have one scale per row": linear != "16a4w",
        "ExecuTorch's own lowering gives its weights one scale per row": (
            choices.lowering == "reference"
        ),
        "the NPU of this SoC multiplies weights of one scale per row only": (
            soc is not None and not soc.block_quantisation
        ),
    }
    for why, holds in whys.items():
        if holds:
            raise UsageError(
                "group-of-qnn",
                f"cannot store weights in groups of {group} with --recipe {linear}",
                why=why,
                next="leave --group-size out",
            )


def lengths_for(spec: DecoderSpec, target: Target, choices: Choices) -> tuple[int, int]:
    """Return `max_seq_len` and `prefill_chunk`: the user's, else the target's cut to the model.

    Raises:
        UsageError: The user asks for more positions than the model knows, or for a chunk that is
            longer than the sequence.
    """
    limit = spec.max_positions
    longest = choices.max_seq_len or min(target.shape.max_seq_len, limit)
    if longest > limit:
        raise UsageError(
            "sequence-too-long",
            f"cannot build for sequences of {longest} tokens",
            why=f"the model was made for at most {limit} (max_position_embeddings)",
            next=f"choose --max-seq-len {limit} or less",
        )
    chunk = choices.prefill_chunk or min(target.shape.prefill_chunk, longest)
    if chunk > longest:
        raise UsageError(
            "chunk-too-long",
            f"cannot take {chunk} tokens in one call",
            why=f"--prefill-chunk is longer than the sequence, {longest} tokens",
            next=f"choose --prefill-chunk {longest} or less",
        )
    return longest, chunk
