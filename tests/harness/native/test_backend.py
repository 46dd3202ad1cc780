"""What the native runner cannot run is refused before it is compiled or pushed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.contract.base import content_id
from mobilepack.contract.manifest import Manifest, StaticForm
from mobilepack.errors import MissingError
from mobilepack.harness.native.backend import check_backend, static_manifest
from tests.packages import toy_package

FORM = StaticForm(past=63, prefill_tokens=8, mask_value=-4e4, windows=(0,))


def of_backend(tmp_path: Path, backend: str, form: StaticForm | None = None) -> Path:
    root = toy_package(tmp_path / backend)
    manifest = Manifest.read(root / "manifest.json")
    plan = manifest.plan.model_copy(update={"backend": backend})
    changed = manifest.model_copy(
        update={"plan": plan, "plan_id": content_id(plan), "static": form}
    )
    (root / "manifest.json").write_text(changed.to_json())
    return root


@pytest.mark.parametrize("form", [None, FORM], ids=["dynamic", "static"])
@pytest.mark.parametrize("backend", ["qnn", "coreml", "onnx"])
def test_other_delegates_are_refused_with_the_way_out(
    backend: str, form: StaticForm | None, tmp_path: Path
) -> None:
    with pytest.raises(MissingError, match=f"cannot run a {backend} package") as caught:
        check_backend(of_backend(tmp_path, backend, form))
    assert caught.value.code == "native-runner-backend"
    assert "-d " in caught.value.next


@pytest.mark.parametrize("form", [None, FORM], ids=["dynamic", "static"])
@pytest.mark.parametrize("backend", ["xnnpack", "portable"])
def test_its_own_pass(backend: str, form: StaticForm | None, tmp_path: Path) -> None:
    check_backend(of_backend(tmp_path, backend, form))


def test_a_bare_program_passes(tmp_path: Path) -> None:
    check_backend(tmp_path)
    assert static_manifest(tmp_path) is None


def test_the_manifest_goes_along_where_the_program_is_called_as_it_says(tmp_path: Path) -> None:
    static, dynamic = of_backend(tmp_path, "xnnpack", FORM), of_backend(tmp_path, "portable")
    assert static_manifest(static) == static / "manifest.json"
    assert static_manifest(dynamic) is None
