"""The app's sources and resources, really compiled: what is left to Gradle is packing them.

org.pytorch:executorch-android cannot be had here, so the app is compiled against ExecuTorch's
Android classes as another project ships them, an older build of the same library.
"""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest

from tests.android_demo.conftest import DEMO, MAIN, NAMESPACE, POM, Aapt

pytestmark = pytest.mark.slow
ANDROID = "{http://schemas.android.com/apk/res/android}"


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
