"""What a build for Core ML decides before it begins: system, storage, form and cuts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobilepack.contract.manifest import Recipe
from mobilepack.errors import UsageError
from mobilepack.ios import Ios, first_with, load_ios
from mobilepack.target import GROUP_SIZES, Target

if TYPE_CHECKING:
    from mobilepack.pipeline.plan import Choices

DEFAULT_GROUP = 16


def ios_for(target: Target, choices: Choices) -> Ios | None:
    """Return the level to build for: the user's, else the target's; None where there is none.

    Raises:
        UsageError: The level is unknown, or the target has none.
    """
    asked = {"--ios": choices.ios, "--weight-limit-mb": choices.weight_limit_mb}
    asked["--states"] = choices.states or None
    if target.ios is not None:
        return load_ios(choices.ios or target.ios)
    wrong = [name for name, value in asked.items() if value is not None]
    if wrong:
        raise UsageError(
            "option-of-coreml",
            f"cannot build {target.name} with {' and '.join(wrong)}",
            why=f"a program of {target.backend} knows nothing of iOS",
            next="leave it out, or build for Core ML: --target coreml",
        )
    return None


def coreml_recipe(linear: str, target: Target, choices: Choices) -> Recipe:
    """Return the recipe for Core ML, where the linear layers decide embedding and cache.

    Raises:
        UsageError: Other storage is asked for, or one that this iOS or the Neural Engine lacks.
    """
    level = ios_for(target, choices)
    if level is not None and linear not in level.recipes:
        since = first_with(linear)
        raise UsageError(
            "recipe-of-ios",
            f"cannot build for iOS {level.version} with --recipe {linear}",
            why=f"Core ML takes weights stored so from iOS {since} on",
            next=f"choose --recipe 8w, or --ios {since}",
        )
    fixed = {"embedding": "fp16" if linear == "fp16" else "8w", "kv_cache": "fp16"}
    for name, value in fixed.items():
        asked = getattr(choices, name)
        if asked not in (None, value):
            raise UsageError(
                "storage-of-coreml",
                f"cannot store the {name.replace('_', ' ')} in {asked} with --recipe {linear}",
                why=f"in a Core ML program it is {value} then",
                next=f"leave --{'q' if name == 'embedding' else ''}{name.replace('_', '-')} out",
            )
    group = _group(linear, target, choices)
    return Recipe.model_validate({"linear": linear, "group_size": group, **fixed})


def _group(linear: str, target: Target, choices: Choices) -> int:
    allowed = GROUP_SIZES.get(linear, ())
    if choices.group_size is None or choices.group_size in allowed:
        own = target.recipe.group_size if target.recipe.linear == linear else DEFAULT_GROUP
        return (choices.group_size or own) if allowed else 0
    why = "the Neural Engine takes int4 with one scale per row; blocks of it run on the CPU and"
    why += " the GPU (coremltools, optimisation overview)"
    if allowed:
        why = "tables serve groups of 8 or 16 rows on the Neural Engine (coremltools, optimisation"
        why += " overview)"
    raise UsageError(
        "group-of-coreml",
        f"cannot store weights in groups of {choices.group_size} for {target.name}",
        why=why,
        next="leave --group-size out, or choose --recipe 4p --group-size 8",
    )


def check_states(target: Target, choices: Choices, level: Ios) -> None:
    """Refuse states where Core ML or the artefact has none.

    Raises:
        UsageError: The system is too old, the artefact is a `.pte`, or coremltools is to convert.
    """
    if not choices.states:
        return
    why = ""
    if not level.states:
        why = f"states came after iOS {level.version}"
    elif target.artefact == "pte":
        why = (
            "ExecuTorch's delegate keeps a state for each method: decode would not see what"
            " prefill wrote"
        )
    elif choices.lowering == "reference":
        why = "coremltools converts the form with keys and values as inputs"
    if why:
        raise UsageError(
            "states",
            f"cannot build {target.name} with --states",
            why=why,
            next="leave --states out, or build --target coreml-mlpackage --ios 18",
        )


def check_reference_lowering(target: Target, recipe: Recipe, level: Ios) -> None:
    """Refuse what coremltools' own conversion cannot write.

    Raises:
        UsageError: Another artefact, recipe or system is asked for.
    """
    why = ""
    if target.artefact == "pte":
        why = "coremltools writes packages, no .pte"
    elif not level.functions:
        why = f"iOS {level.version} knows no package of several functions"
    elif recipe.linear == "4p":
        why = "its conversion does not make tables for groups of rows"
    if why:
        raise UsageError(
            "reference-lowering-coreml",
            f"cannot build {target.name} with --lowering reference",
            why=why,
            next="leave --lowering out",
        )


def weight_limit_bytes(choices: Choices, level: Ios) -> int:
    """Return the most weights of one program: the user's limit, else the system's.

    Raises:
        UsageError: The user's is above the system's.
    """
    most = level.weight_limit_mb
    if choices.weight_limit_mb is not None and choices.weight_limit_mb > most:
        raise UsageError(
            "weight-limit-of-ios",
            f"cannot build with --weight-limit-mb {choices.weight_limit_mb}",
            why=f"an iPhone with iOS {level.version} loads at most {most} MB of one model",
            next=f"leave --weight-limit-mb out, or give at most {most}",
        )
    return (choices.weight_limit_mb or most) * 1_000_000
