"""The Kotlin compiler and what the demo app is compiled against, from Maven Central and npm."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from mobilepack.harness.provision.debian import Suite, unpacked
from tests.harness.parts import provisioned
from tests.provision import ROOT, jars, npm_package

__all__ = ["provisioned"]

DEMO = ROOT / "android_demo"
POM = ROOT / "tests" / "data" / "android_demo" / "pom.xml"
MAIN = DEMO / "app/src/main"
OLDEST = POM.with_name("oldest-pom.xml")
NAMESPACE = "mobilepack.demo"
EXECUTORCH = (
    "react-native-executorch",
    "0.9.3",
    "70a20a865b82f47ac46c82711d93c2038cf99eccbb9b287494219063f2217622",
)
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

    def compile(
        self, out: Path, sources: list[Path], classpath: list[Path], friend: Path | None = None
    ) -> None:
        """Compile folders of Kotlin and Java sources to a jar; a warning is an error.

        Args:
            out: The jar.
            sources: Folders and files.
            classpath: Jars that they need.
            friend: One of these whose internals they see, as a module's tests do.
        """
        own = [path for path in self.jars.glob("*.jar") if path != self.framework]
        options = ["-no-stdlib", "-no-reflect", "-jvm-target", "17", "-Werror", "-d", str(out)]
        options += [f"-Xfriend-paths={friend}"] if friend else []
        argv = ["java", "-cp", _path(own), _COMPILER, *options, "-cp", _path(classpath)]
        done = subprocess.run(
            [*argv, *map(str, sources)], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr

    def run(
        self, main: str, classpath: list[Path], *arguments: object, fed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a main class with the libraries."""
        argv = ["java", "-cp", _path([*classpath, *self.libraries]), main, *map(str, arguments)]
        return subprocess.run(
            argv, input=fed, capture_output=True, text=True, timeout=60, check=False
        )


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


@pytest.fixture(scope="session")
def toy(kotlin: Kotlin, core: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the toy model's program."""
    out = tmp_path_factory.mktemp("toy") / "toy.jar"
    sources = [DEMO / "harness-core/src/test/kotlin"]
    kotlin.compile(out, sources, [core, *kotlin.libraries], friend=core)
    return out


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


@pytest.fixture(scope="session")
def aapt(provisioned: object) -> Aapt:
    """Fetch aapt2 once."""
    return Aapt(unpacked(Suite.of_this_machine(), ["aapt"]))


def namespaced(folder: Path) -> Path:
    """Write the manifest as Gradle's plug-in hands it to aapt2: with namespace and id."""
    text = (MAIN / "AndroidManifest.xml").read_text()
    assert "package=" not in text
    path = folder / "AndroidManifest.xml"
    named = text.replace("<manifest ", f'<manifest package="{NAMESPACE}" ')
    path.write_text(named.replace("${applicationId}", NAMESPACE))
    return path


@pytest.fixture(scope="session")
def linked(aapt: Aapt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile and link manifest and resources against minSdk; return the folder with `app.apk`."""
    folder = tmp_path_factory.mktemp("linked")
    (framework,) = jars(OLDEST).glob("android-all-*.jar")
    aapt("compile", "--dir", MAIN / "res", "-o", folder / "res.zip")
    levels = ("--min-sdk-version", "28", "--target-sdk-version", "34")
    files = ("--manifest", namespaced(folder), "--java", folder / "java")
    aapt("link", "-I", framework, *levels, *files, "-o", folder / "app.apk", folder / "res.zip")
    return folder


@pytest.fixture(scope="session")
def executorch() -> Path:
    """Fetch ExecuTorch's Android classes as another project ships them."""
    if shutil.which("npm") is None:
        pytest.skip("not on PATH: npm")
    return npm_package(*EXECUTORCH) / "package/android/libs/classes.jar"


@pytest.fixture(scope="session")
def app(
    kotlin: Kotlin,
    core: Path,
    linked: Path,
    executorch: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Compile the app's Kotlin with the R class that aapt2 wrote."""
    out = tmp_path_factory.mktemp("app") / "app.jar"
    sources = [MAIN / "kotlin", linked / "java"]
    kotlin.compile(out, sources, [core, executorch, kotlin.framework, *kotlin.libraries])
    return out
