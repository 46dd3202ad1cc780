"""The Core ML functions of a package, wherever they lie: in one, in several, in a `.pte`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.contract.manifest import BuildPlan, Method
from mobilepack.contract.package import MLPACKAGE, MLPACKAGES
from mobilepack.pipeline.package import PROGRAM

if TYPE_CHECKING:
    from mobilepack.mil.program import Function


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
