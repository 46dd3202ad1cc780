"""What a package folder and an output folder must look like, whatever happened to the build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import open_package
from mobilepack.errors import MissingError


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its relative name, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def facts(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest without what differs from build to build: the costs of its stages."""
    return manifest.model_dump(exclude={"stages"})


def assert_same_package(found: Path, expected: Path) -> None:
    """Assert that two packages are byte for byte the same but for the manifests' stage costs."""
    ours, theirs = files(found), files(expected)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] in ([], ["manifest.json"])
    assert facts(open_package(found).manifest) == facts(open_package(expected).manifest)


def assert_nothing_half(out: Path) -> None:
    """Assert that an output folder shows a whole package or none."""
    visible = [path.name for path in out.iterdir() if not path.name.startswith(".")]
    assert visible in ([], ["xnnpack"])
    if visible:
        open_package(out)
    else:
        try:
            open_package(out)
        except MissingError as err:
            assert err.code == "no-package"  # noqa: PT017  either no package or a whole one
        else:
            raise AssertionError("a package is found though none is visible")


def assert_clean(out: Path) -> None:
    """Assert that nothing but a whole package and the lock is in an output folder."""
    assert {path.name for path in out.iterdir()} <= {"xnnpack", ".xnnpack.lock"}
    assert_nothing_half(out)
    if (out / "xnnpack").exists():
        hidden = list((out / "xnnpack").rglob(".*"))
        assert not hidden


def assert_left_nothing(out: Path) -> None:
    """Assert that a failed build left nothing but, at most, the lock."""
    assert not out.exists() or {path.name for path in out.iterdir()} <= {".xnnpack.lock"}
