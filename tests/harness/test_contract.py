"""Every harness, fake or real, passes the checks that ship."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mobilepack.harness.base import Harness
from mobilepack.testing import HARNESS_CHECKS, FakeHarness


@pytest.mark.parametrize("check", HARNESS_CHECKS, ids=lambda check: check.__name__)
def test_the_fake_harness(
    check: Callable[[Harness, Path, str, Path], None], tmp_path: Path
) -> None:
    check(FakeHarness(), tmp_path, "model.pte", tmp_path / "log.txt")
