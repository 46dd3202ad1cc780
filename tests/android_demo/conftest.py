"""The Kotlin compiler and what the demo app is compiled against, from Maven Central and npm."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.provision import ROOT, jars

DEMO = ROOT / "android_demo"
POM = ROOT / "tests" / "data" / "android_demo" / "pom.xml"
_COMPILER = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
_FRAMEWORK = "android-all-*.jar"
_SERIALIZATION = ("kotlin-stdlib-*.jar", "kotlinx-serialization-*.jar")


@dataclass(frozen=True)
class Kotlin:
    """A compiler and the libraries that its output needs.

    Attributes:
        jars: Folder of every jar from Maven Central.
    """

    jars: Path

    @property
    def libraries(self) -> list[Path]:
        """What :harness-core is declared to depend on."""
        return [path for pattern in _SERIALIZATION for path in self.jars.glob(pattern)]

    @property
    def framework(self) -> Path:
        """Android's framework."""
        (found,) = self.jars.glob(_FRAMEWORK)
        return found

    def compile(self, out: Path, sources: list[Path], classpath: list[Path]) -> None:
        """Compile folders of Kotlin and Java sources to a jar; a warning is an error."""
        own = [path for path in self.jars.glob("*.jar") if path != self.framework]
        options = ["-no-stdlib", "-no-reflect", "-jvm-target", "17", "-Werror", "-d", str(out)]
        argv = ["java", "-cp", _path(own), _COMPILER, *options, "-cp", _path(classpath)]
        done = subprocess.run(
            [*argv, *map(str, sources)], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr

    def run(
        self, main: str, classpath: list[Path], *arguments: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a main class with the libraries."""
        argv = ["java", "-cp", _path([*classpath, *self.libraries]), main, *map(str, arguments)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def _path(entries: list[Path]) -> str:
    return ":".join(map(str, entries))


@pytest.fixture(scope="session")
def kotlin() -> Kotlin:
    """Fetch the compiler once."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)}")
    return Kotlin(jars(POM))


@pytest.fixture(scope="session")
def core(kotlin: Kotlin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile :harness-core."""
    out = tmp_path_factory.mktemp("core") / "core.jar"
    kotlin.compile(out, [DEMO / "harness-core/src/main/kotlin"], kotlin.libraries)
    return out
