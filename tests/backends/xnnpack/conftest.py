"""Programs, lowered and written once per test run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mobilepack.contract.manifest import Recipe
from tests.backends.xnnpack.programs import FP32_RECIPE, HALF_RECIPES, RECIPES, Tiny, tiny
from tests.runtime import Program

if TYPE_CHECKING:
    from mobilepack.backends.xnnpack.lowered import Lowered


@dataclass(frozen=True)
class Written:
    """A program file with what it was made of."""

    model: Tiny
    recipe: Recipe
    lowered: Lowered
    path: Path

    def load(self) -> Program:
        """Load it with an empty cache."""
        return Program(self.path)


Models = Callable[..., Tiny]
Programs = Callable[..., Written]


@pytest.fixture(scope="session")
def model() -> Models:
    """Return a tiny model; equal options share one, with its export."""
    cache: dict[str, Tiny] = {}

    def make(family: str = "llama", **options: Any) -> Tiny:
        key = repr((family, sorted(options.items())))
        if key not in cache:
            cache[key] = tiny(family, **options)
        return cache[key]

    return make


@pytest.fixture(scope="session")
def program(model: Models, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Return a program; equal options share one."""
    cache: dict[str, Written] = {}
    folder = tmp_path_factory.mktemp("programs")

    def make(family: str = "llama", recipe: Recipe | str = FP32_RECIPE, **options: Any) -> Written:
        made = model(family, **options)
        recipe = {**RECIPES, **HALF_RECIPES}[recipe] if isinstance(recipe, str) else recipe
        key = repr((made.spec, made.context, made.chunk, recipe))
        if key not in cache:
            lowered = made.lower(recipe)
            path = made.write(lowered, folder / f"{len(cache)}.pte")
            cache[key] = Written(made, recipe, lowered, path)
        return cache[key]

    return make
