"""app ios and deploy -d UDID: a project of the user's own, and their package in the app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.app import AppOptions
from mobilepack.commands.app_ios import ios_app
from mobilepack.errors import UsageError
from mobilepack.harness.ios.container import CURRENT, PACKAGES
from mobilepack.testing.apple.install import BUNDLE_ID, StandInXcode, toy_app
from tests.commands.test_app import sources
from tests.harness.parts import quantised

__all__ = ["quantised"]
DEMO = Path(__file__).parents[2] / "ios_demo"
LOCAL = ("build/", ".build/", ".swiftpm/", "package/")


def test_without_a_package_it_is_the_demo_s_sources(tmp_path: Path) -> None:
    written = ios_app(AppOptions(tmp_path / "mine"))
    assert (written.variant, written.bundled) == ("MobilepackDemo", {})
    theirs = {name: raw for name, raw in sources(DEMO).items() if not name.startswith(LOCAL)}
    assert sources(tmp_path / "mine") == theirs


def test_an_identifier_is_the_only_thing_that_changes(tmp_path: Path) -> None:
    ios_app(AppOptions(tmp_path / "mine", application_id="com.example.my-chat"))
    ours, theirs = sources(tmp_path / "mine"), sources(DEMO)
    assert [name for name in ours if ours[name] != theirs[name]] == ["project.yml"]
    assert b"PRODUCT_BUNDLE_IDENTIFIER: com.example.my-chat\n" in ours["project.yml"]


@pytest.mark.parametrize("name", ["", "chat", "a b.c", "com..x", "x.y\n", "x_y.z"])
def test_what_is_no_identifier_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no app can have"):
        ios_app(AppOptions(tmp_path / "mine", application_id=name))
    assert not (tmp_path / "mine").exists()


@pytest.mark.slow
def test_a_package_becomes_part_of_the_app(
    quantised: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    done = run("app", "ios", tmp_path / "mine", quantised, "--json")
    assert done.code == 0, done.err
    names = {path.name for path in (tmp_path / "mine/package").iterdir()}
    assert set(done.document["bundled"]) == names
    assert names == {"model.pte", "tokenizer.json", "manifest.json", "prompt.txt"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["iphone", "simulator"])
def test_a_package_is_deployed_once(
    kind: str,
    quantised: Path,
    tmp_path: Path,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    xcode = StandInXcode(tmp_path / "xcode")
    monkeypatch.setenv("MOBILEPACK_XCRUN", str(xcode.install()))
    monkeypatch.setenv("MOBILEPACK_CACHE", str(tmp_path / "cache"))
    udid = xcode.add_iphone()
    if kind == "simulator":
        from mobilepack.commands.apple import find_xcrun
        from mobilepack.harness.ios.simulator import Simctl

        udid = Simctl(find_xcrun().under("simctl")).create()
    words = ("deploy", quantised, "-d", udid, "--app", toy_app(tmp_path), "--json")
    first, second = run(*words), run(*words)
    assert first.code == 0, first.err
    assert set(first.document["pushed"]) == {
        *("model.pte", "tokenizer.json", "manifest.json", "prompt.txt"),
    }
    assert (second.document["pushed"], len(second.document["kept"])) == ([], 4)
    data = Path(xcode.machines()[udid].apps[BUNDLE_ID].data)
    folder = data / PACKAGES / (data / CURRENT).read_text()
    assert (folder / "model.pte").read_bytes() == (quantised / "model.pte").read_bytes()
    assert "{message}" in (folder / "prompt.txt").read_text()
