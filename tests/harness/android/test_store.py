"""What cannot be a program on a phone is refused before anything is pushed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.errors import UsageError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.store import Store


def test_a_core_ml_package_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "model.mlpackage"
    package.mkdir()
    with pytest.raises(UsageError, match=r"model\.mlpackage"):
        Store(Adb("nobody")).program(package)
