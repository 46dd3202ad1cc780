"""The Core ML functions of a package: how they are to be, and where they lie."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.contract.manifest import BuildPlan, Method
from mobilepack.contract.package import MLPACKAGE, MLPACKAGES
from mobilepack.ios import load_ios
from mobilepack.pipeline.package import PROGRAM

if TYPE_CHECKING:
    from mobilepack.backends.coreml.package import Wanted
    from mobilepack.mil.program import Function


def wanted_of(plan: BuildPlan) -> Wanted:
    """Return what our own writer is to write."""
    from mobilepack.backends.coreml.decoder import Form
    from mobilepack.backends.coreml.package import Wanted

    level = load_ios(plan.ios or 0)
    return Wanted(
        opset=level.opset,
        linear=plan.recipe.linear,
        group=plan.recipe.group_size,
        prefill_tokens=plan.prefill_chunk,
        form=Form(plan.max_seq_len, plan.max_seq_len, plan.states),
        limit_bytes=plan.weight_limit_bytes or 0,
        functions=level.functions,
        by_method=plan.artefact == "pte",
    )


def decode_functions(
    folder: Path, plan: BuildPlan, methods: Iterable[Method]
) -> tuple[Function, ...]:
    """Return the functions of a decode step."""
    from mobilepack.mil.delegates import Delegates
    from mobilepack.mil.mlpackage import open_mlpackage
    from mobilepack.mil.pte import open_pte

    if plan.artefact == "pte":
        found = Delegates(open_pte(folder / PROGRAM)).of("decode")
        ours = (one for one in found if one is not None)
        return tuple(one.program.functions[one.function or one.program.default] for one in ours)
    decode = next(method for method in methods if method.name == "decode")
    where = folder / MLPACKAGES if (folder / MLPACKAGES).is_dir() else folder
    single = where == folder  # one package, renamed
    names = {c.program: MLPACKAGE if single else c.program for c in decode.calls}
    programs = {name: open_mlpackage(where / path) for name, path in names.items()}
    return tuple(programs[c.program].functions[c.function] for c in decode.calls)
