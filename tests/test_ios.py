"""Every file in targets/ios is a level of iOS, and says of it what coremltools' own table says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.errors import UsageError
from mobilepack.ios import first_with, ios_versions, load_ios
from mobilepack.mil.program import OPSETS
from mobilepack.target import RECIPES, load_target, target_names

FILES = sorted((Path(__file__).parent.parent / "targets" / "ios").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_has_the_opset_of_its_system(path: Path) -> None:
    level = load_ios(int(path.stem))
    assert OPSETS[level.opset] == f"iOS{level.version}"
    assert set(level.recipes) <= set(RECIPES["coreml"])


def test_every_core_ml_target_is_for_a_level_with_a_file() -> None:
    found = [target for name in target_names() if (target := load_target(name)).ios is not None]
    assert {target.ios for target in found} == set(ios_versions())
    for target in found:
        assert target.recipe.linear in load_ios(target.ios or 0).recipes


def test_four_bits_came_with_ios_18() -> None:
    assert first_with("4w") == first_with("4p") == 18
    assert first_with("8w") == 17
    assert not load_ios(17).functions
    assert not load_ios(17).states


def test_an_unknown_level_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="17, 18, 26"):
        load_ios(16)
