"""The app's own unit tests, run on Android 15's framework under Robolectric."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.android_demo.conftest import DEMO, NAMESPACE, POM, Kotlin, namespaced
from tests.provision import jars

pytestmark = pytest.mark.slow


def classes(folder: Path, out: Path) -> list[Path]:
    """Take the jar out of every Android archive of a folder."""
    found = []
    for archive in folder.glob("*.aar"):
        found.append(out / f"{archive.stem}.jar")
        found[-1].write_bytes(zipfile.ZipFile(archive).read("classes.jar"))
    return found


def test_the_screens_say_what_is_missing_and_refuse_bad_plans(
    kotlin: Kotlin, core: Path, app: Path, executorch: Path, linked: Path, tmp_path: Path
) -> None:
    robolectric = jars(POM.with_name("robolectric-pom.xml"))
    own = classes(robolectric, tmp_path)
    own += [path for path in robolectric.glob("*.jar") if "android-all" not in path.name]
    libraries = [core, app, executorch, *kotlin.libraries]
    tests = tmp_path / "tests.jar"
    sources = [DEMO / "app/src/test/kotlin", linked / "java"]
    kotlin.compile(tests, sources, [*libraries, *own, kotlin.framework], friend=app)
    config = tmp_path / "com/android/tools/test_config.properties"
    config.parent.mkdir(parents=True)
    config.write_text(
        f"android_custom_package={NAMESPACE}\n"
        f"android_merged_manifest={namespaced(tmp_path)}\n"
        f"android_resource_apk={linked / 'app.apk'}\n"
    )
    classpath = ":".join(map(str, [tmp_path, tests, *libraries, *own, kotlin.framework]))
    offline = ["-Drobolectric.offline=true", f"-Drobolectric.dependency.dir={robolectric}"]
    main = ["org.junit.runner.JUnitCore", "mobilepack.demo.ScreensTest"]
    done = subprocess.run(
        ["java", *offline, "-cp", classpath, *main],  # noqa: S607 - as the compiler is
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK (8 tests)" in done.stdout
