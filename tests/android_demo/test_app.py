"""The app's sources and resources, really compiled: what is left to Gradle is packing them.

org.pytorch:executorch-android cannot be had here, so the app is compiled against ExecuTorch's
Android classes as another project ships them, an older build of the same library.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from mobilepack.harness.provision.debian import Suite, unpacked
from tests.android_demo.conftest import DEMO, POM, Kotlin
from tests.harness.parts import provisioned
from tests.provision import jars, npm_package

__all__ = ["provisioned"]
pytestmark = pytest.mark.slow
MAIN = DEMO / "app/src/main"
OLDEST = POM.with_name("oldest-pom.xml")
NAMESPACE = "mobilepack.demo"
ANDROID = "{http://schemas.android.com/apk/res/android}"
EXECUTORCH = (
    "react-native-executorch",
    "0.9.3",
    "70a20a865b82f47ac46c82711d93c2038cf99eccbb9b287494219063f2217622",
)


@dataclass(frozen=True)
class Aapt:
    """Debian's aapt2 in a folder of its own."""

    root: Path

    def __call__(self, *arguments: object) -> str:
        """Run it; return what it printed."""
        libraries = ("lib/x86_64-linux-gnu/android", "lib/x86_64-linux-gnu", "lib/p7zip")
        path = ":".join(str(self.root / "usr" / folder) for folder in libraries)
        done = subprocess.run(
            [str(self.root / "usr/bin/aapt2"), *map(str, arguments)],
            env=os.environ | {"LD_LIBRARY_PATH": path},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def aapt(provisioned: object) -> Aapt:
    """Fetch aapt2 once."""
    return Aapt(unpacked(Suite.of_this_machine(), ["aapt"]))


def namespaced(folder: Path) -> Path:
    """Write the manifest as Gradle's plug-in hands it to aapt2: with the namespace."""
    text = (MAIN / "AndroidManifest.xml").read_text()
    assert "package=" not in text
    path = folder / "AndroidManifest.xml"
    path.write_text(text.replace("<manifest ", f'<manifest package="{NAMESPACE}" '))
    return path


@pytest.fixture(scope="module")
def linked(aapt: Aapt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile and link manifest and resources against minSdk; return the folder with `app.apk`."""
    folder = tmp_path_factory.mktemp("linked")
    (framework,) = jars(OLDEST).glob("android-all-*.jar")
    aapt("compile", "--dir", MAIN / "res", "-o", folder / "res.zip")
    levels = ("--min-sdk-version", "28", "--target-sdk-version", "34")
    files = ("--manifest", namespaced(folder), "--java", folder / "java")
    aapt("link", "-I", framework, *levels, *files, "-o", folder / "app.apk", folder / "res.zip")
    return folder


@pytest.fixture(scope="module")
def app(kotlin: Kotlin, core: Path, linked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the app's Kotlin with the R class that aapt2 wrote."""
    if shutil.which("npm") is None:
        pytest.skip("not on PATH: npm")
    executorch = npm_package(*EXECUTORCH) / "package/android/libs/classes.jar"
    out = tmp_path_factory.mktemp("app") / "app.jar"
    sources = [MAIN / "kotlin", linked / "java"]
    kotlin.compile(out, sources, [core, executorch, kotlin.framework, *kotlin.libraries])
    return out


def test_every_activity_of_the_manifest_is_a_class_of_the_app(app: Path) -> None:
    manifest = ET.parse(MAIN / "AndroidManifest.xml")  # noqa: S314 - our own file
    activities = [node.attrib[f"{ANDROID}name"] for node in manifest.iter("activity")]
    assert activities == ["mobilepack.demo.ChatActivity", "mobilepack.demo.PlanActivity"]
    classes = set(zipfile.ZipFile(app).namelist())
    assert {name.replace(".", "/") + ".class" for name in activities} <= classes


def test_android_s_tool_reads_what_was_meant(aapt: Aapt, linked: Path) -> None:
    said = aapt("dump", "badging", linked / "app.apk")
    assert f"package: name='{NAMESPACE}'" in said
    assert "sdkVersion:'28'" in said
    assert "targetSdkVersion:'34'" in said
    assert "launchable-activity: name='mobilepack.demo.ChatActivity'" in said


def test_the_npu_s_flavour_asks_for_the_dsp() -> None:
    """Debian 12's aapt2 is older than this element, so the file itself is read."""
    manifest = ET.parse(DEMO / "app/src/qnn/AndroidManifest.xml")  # noqa: S314 - our own file
    (library,) = manifest.iter("uses-native-library")
    assert library.attrib[f"{ANDROID}name"] == "libcdsprpc.so"


def test_every_string_and_view_is_used() -> None:
    code = "".join(path.read_text() for path in (MAIN / "kotlin").rglob("*.kt"))
    xml = "".join(path.read_text() for path in MAIN.rglob("*.xml"))
    for name in re.findall(r'<string name="(\w+)"', xml):
        assert (
            f"R.string.{name})" in code or f"R.string.{name}," in code or f"@string/{name}" in xml
        )
    for name in re.findall(r'"@\+id/(\w+)"', xml):
        assert f"R.id.{name})" in code


def test_gradle_names_the_versions_that_are_tested_and_promised() -> None:
    versions = tomllib.loads((DEMO / "gradle/libs.versions.toml").read_text())["versions"]
    pom = POM.read_text()
    for version in (versions["kotlin"], versions["serialization"]):
        assert f"<version>{version}</version>" in pom
    strings = (MAIN / "res/values/strings.xml").read_text()
    assert f">{versions['executorch']}</string>" in strings
    pinned = (DEMO.parent / "pyproject.toml").read_text()
    assert f'"executorch=={versions["executorch"]}"' in pinned
