"""What is checked without a compiler: the sources parse, and project.yml is XcodeGen's."""

from __future__ import annotations

import plistlib
from pathlib import Path
from typing import Any

import pytest
import tree_sitter
import tree_sitter_swift
import yaml

from mobilepack.harness.ios.container import BUNDLE_ID
from tests.ios_demo.conftest import DEMO

PROJECT = DEMO / "project.yml"
SWIFT = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))

# What XcodeGen knows at each place, as far as one uses it (Docs/ProjectSpec.md of XcodeGen 2.44).
TOP = {"name", "options", "settings", "packages", "targets", "schemes", "include", "configs"}
OPTIONS = {"bundleIdPrefix", "deploymentTarget", "createIntermediateGroups", "xcodeVersion"}
PACKAGE = {"url", "path", "branch", "from", "exactVersion", "revision", "github", "version"}
TARGET = {
    *("type", "platform", "sources", "settings", "dependencies", "info", "entitlements"),
    *("deploymentTarget", "scheme", "resources", "preBuildScripts", "postBuildScripts"),
}
SOURCE = {"path", "type", "optional", "buildPhase", "excludes", "includes", "name", "group"}
DEPENDENCY = {"package", "product", "target", "framework", "sdk", "embed", "link"}
PLIST = {"path", "properties"}


def broken(source: bytes) -> bool:
    return SWIFT.parse(source).root_node.has_error


@pytest.mark.parametrize(
    "path", sorted(DEMO.rglob("*.swift")), ids=lambda path: path.relative_to(DEMO).as_posix()
)
def test_every_source_parses(path: Path) -> None:
    assert not broken(path.read_bytes())


@pytest.mark.parametrize("cut", ["{", "}", ")", "("])
def test_a_broken_source_does_not_parse(cut: str) -> None:
    text = (DEMO / "App/Conversation.swift").read_text()
    assert broken(text.replace(cut, "", 1).encode())


def unknown(project: dict[str, Any]) -> list[str]:
    """Return the keys of a project that XcodeGen does not know."""
    wrong = [key for key in project if key not in TOP]
    wrong += [key for key in project["options"] if key not in OPTIONS]
    for package in project["packages"].values():
        wrong += [key for key in package if key not in PACKAGE]
    for target in project["targets"].values():
        wrong += [key for key in target if key not in TARGET]
        wrong += [key for one in target["sources"] for key in one if key not in SOURCE]
        wrong += [key for one in target["dependencies"] for key in one if key not in DEPENDENCY]
        wrong += [key for part in ("info", "entitlements") for key in target[part]
                  if key not in PLIST]  # fmt: skip
    return wrong


@pytest.fixture
def project() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(PROJECT.read_text())
    return found


def test_xcodegen_knows_every_key(project: dict[str, Any]) -> None:
    assert unknown(project) == []
    project["targets"]["MobilepackDemo"]["dependancies"] = []
    assert unknown(project) == ["dependancies"]


def test_the_target_is_what_the_harness_installs(project: dict[str, Any]) -> None:
    target = project["targets"]["MobilepackDemo"]
    assert (target["type"], target["platform"]) == ("application", "iOS")
    assert target["settings"]["base"]["PRODUCT_BUNDLE_IDENTIFIER"] == BUNDLE_ID
    assert project["settings"]["base"]["OTHER_LDFLAGS"] == ["-all_load"]
    assert set(project["schemes"]) == set(project["targets"])
    declared = {(one["package"], one["product"]) for one in target["dependencies"]}
    assert {name for name, _ in declared} == set(project["packages"])
    products = {product for _, product in declared}
    assert {"backend_xnnpack", "backend_coreml", "executorch_llm", "HarnessCore"} <= products


def test_files_are_shared_and_memory_is_asked_for(project: dict[str, Any]) -> None:
    target = project["targets"]["MobilepackDemo"]
    info = target["info"]["properties"]
    assert info["UIFileSharingEnabled"] is True
    assert info["LSSupportsOpeningDocumentsInPlace"] is True
    limit = "com.apple.developer.kernel.increased-memory-limit"
    assert target["entitlements"]["properties"] == {limit: True}
    plistlib.dumps(info)  # nothing in it that a property list cannot hold


def test_local_paths_are_there(project: dict[str, Any]) -> None:
    paths = [one["path"] for one in project["packages"].values() if "path" in one]
    for one in project["targets"]["MobilepackDemo"]["sources"]:
        if not one.get("optional"):
            paths.append(one["path"])
    assert [path for path in paths if not (DEMO / path).is_dir()] == []


def test_modules_that_the_app_imports_are_dependencies(project: dict[str, Any]) -> None:
    apple = {"CoreML", "Darwin", "Foundation", "Observation", "SwiftUI", "UIKit", "os"}
    ours = {"HarnessCore", "ExecuTorch", "ExecuTorchLLM"}
    found = {
        line.split()[1]
        for path in (DEMO / "App").glob("*.swift")
        for line in path.read_text().splitlines()
        if line.startswith("import ")
    }
    assert found == apple | ours
