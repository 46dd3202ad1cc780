"""The real go-ios against a fake usbmuxd: list, push, pull, deploy, and what it refuses."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilepack.commands.apple import apple_devices, apple_harness
from mobilepack.errors import MissingError, MobilepackError, RunFailedError
from mobilepack.harness.base import Limits
from mobilepack.harness.ios.container import CURRENT, FOLDER, PACKAGES
from mobilepack.harness.ios.goios import GoIos, GoIosContainer
from mobilepack.harness.ios.lab import is_udid
from mobilepack.harness.ios.tool import Tool
from mobilepack.testing.apple import grammar
from mobilepack.testing.apple.install import BUNDLE_ID
from mobilepack.testing.apple.usbmuxd import UDID, FakeUsbmuxd
from tests.harness.ios.conftest import PLAN
from tests.provision import npm_package

pytestmark = pytest.mark.slow
GO_IOS = ("go-ios", "1.2.0", "4209de5888c010f798c659e123444ef46b20042f9638729e7de5694e7dc26fdb")


@pytest.fixture(scope="module")
def program() -> Path:
    """Fetch go-ios once."""
    if shutil.which("npm") is None or platform.machine() != "x86_64":
        pytest.skip("needs npm and x86_64")
    found = npm_package(*GO_IOS) / "package/dist/go-ios-linux-amd64_linux_amd64/ios"
    found.chmod(0o755)
    return found


@pytest.fixture
def lab(
    program: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeUsbmuxd]:
    folder = tmp_path_factory.mktemp("m")
    monkeypatch.setenv("MOBILEPACK_CACHE", str(folder / "cache"))
    monkeypatch.setenv("MOBILEPACK_GO_IOS", str(program))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("MOBILEPACK_XCRUN", raising=False)
    with FakeUsbmuxd(folder / "u", BUNDLE_ID) as made:
        monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", f"unix://{made.address}")
        yield made


def container(bundle_id: str = BUNDLE_ID) -> GoIosContainer:
    return GoIosContainer(GoIos(Tool((os.environ["MOBILEPACK_GO_IOS"],))), UDID, bundle_id)


def test_the_phone_is_listed(lab: FakeUsbmuxd) -> None:
    rows, problems = apple_devices()
    assert [(one.id, one.kind, one.name, one.state) for one in rows] == [
        (UDID, "iphone", "iPhone16,1, iOS 17.5", "ready")
    ]
    assert is_udid(UDID)
    assert len(problems) == 1  # simulators: no Xcode


def test_files_and_folders_arrive_whole_and_come_back(lab: FakeUsbmuxd, tmp_path: Path) -> None:
    (tmp_path / "model.mlpackage/Data").mkdir(parents=True)
    big = os.urandom(8 << 20)
    (tmp_path / "model.mlpackage/Data/weight.bin").write_bytes(big)
    (tmp_path / "model.mlpackage/Manifest.json").write_text("{}")
    app = container()
    app.push(tmp_path / "model.mlpackage", f"{FOLDER}/programs/abc/model.mlpackage")
    there = lab.apps[BUNDLE_ID] / FOLDER / "programs/abc/model.mlpackage"
    assert (there / "Data/weight.bin").read_bytes() == big
    assert app.read(f"{FOLDER}/programs/abc/model.mlpackage/Data/weight.bin") == big
    assert app.read(f"{FOLDER}/none") is None


def test_a_package_is_deployed(lab: FakeUsbmuxd, tmp_path: Path) -> None:
    (tmp_path / "model.pte").write_bytes(b"program")
    harness = apple_harness(UDID, None, purpose="test")
    files = {"model.pte": tmp_path / "model.pte"}
    assert harness.deploy(files, lambda name, size: None) == ("model.pte",)
    data = lab.apps[BUNDLE_ID]
    digest = (data / CURRENT).read_text()
    assert (data / PACKAGES / digest / "model.pte").read_bytes() == b"program"
    assert harness.deploy(files, lambda name, size: None) == ()


def test_an_app_cannot_be_started_without_a_tunnel(
    lab: FakeUsbmuxd, package: Path, tmp_path: Path
) -> None:
    """The plan is pushed, the launch is refused as a phone does whose tunnel is down."""
    harness = apple_harness(UDID, None, purpose="test")
    with pytest.raises(RunFailedError) as caught:
        harness.run(package, PLAN, log=tmp_path / "log.txt", limits=Limits.within(120))
    assert caught.value.code == "tunnel-down"
    assert "ios tunnel start --userspace" in caught.value.next
    assert len(list((lab.apps[BUNDLE_ID] / FOLDER).glob("plan-*.json"))) == 1


def test_what_is_not_there_is_named(lab: FakeUsbmuxd, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(MissingError) as caught:
        container("no.such.app").push(tmp_path / "x", "Documents/x")
    assert caught.value.code == "app-not-installed"
    with pytest.raises(MobilepackError, match="did you mean"):
        apple_harness(UDID[:-1] + "B", None, purpose="test")


def test_a_locked_phone_is_named(
    program: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILEPACK_GO_IOS", str(program))
    with FakeUsbmuxd(tmp_path_factory.mktemp("m"), BUNDLE_ID, locked=True) as made:
        monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", f"unix://{made.address}")
        with pytest.raises(RunFailedError) as caught:
            container().read("Documents/x")
    assert caught.value.code == "phone-locked"


def test_without_usbmuxd_it_says_so(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", f"unix://{tmp_path}/none")
    with pytest.raises(MissingError) as caught:
        GoIos(Tool((str(program),))).phones()
    assert caught.value.code == "no-usbmuxd"


def test_the_stand_in_takes_what_the_real_usage_says(program: Path) -> None:
    usage = Tool((str(program),)).attempt("no-such-command").stderr
    lines = [line.strip() for line in usage.splitlines()]
    for name, shape in grammar.tools("go-ios-1.2.0")["ios"].items():
        words = name.split()
        (line,) = (
            one
            for one in lines
            if one.startswith(f"ios {words[0]} ") and all(word in one for word in words)
        )
        own = {*shape.flags, *shape.values} - {"--udid"}  # which every command takes
        assert all(option in line for option in own), line
    assert "--udid=<udid>" in Tool((str(program),)).attempt("--help").stdout
