"""What the native runner cannot run is refused before it is compiled or pushed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.contract.base import content_id
from mobilepack.contract.manifest import Manifest
from mobilepack.errors import MissingError
from mobilepack.harness.native.backend import check_backend
from tests.packages import toy_package


def of_backend(tmp_path: Path, backend: str) -> Path:
    root = toy_package(tmp_path / backend)
    manifest = Manifest.read(root / "manifest.json")
    plan = manifest.plan.model_copy(update={"backend": backend})
    changed = manifest.model_copy(update={"plan": plan, "plan_id": content_id(plan)})
    (root / "manifest.json").write_text(changed.to_json())
    return root


@pytest.mark.parametrize("backend", ["qnn", "coreml", "onnx"])
def test_other_delegates_are_refused_with_the_way_out(backend: str, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=f"cannot run a {backend} package") as caught:
        check_backend(of_backend(tmp_path, backend))
    assert caught.value.code == "native-runner-backend"
    assert "-d " in caught.value.next


def test_xnnpack_and_bare_programs_pass(tmp_path: Path) -> None:
    check_backend(of_backend(tmp_path, "xnnpack"))
    check_backend(tmp_path)
