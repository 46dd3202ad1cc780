"""A virtual phone with a Java runtime, Android's ExecuTorch library, and the app's own harness."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mobilepack.commands.devices import AdbServer
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.native.build import toolchain
from mobilepack.harness.provision.debian import unpacked
from mobilepack.harness.virtual import phones
from mobilepack.harness.virtual.root import SUITE
from mobilepack.process import Finished
from tests.android_demo.conftest import DEMO, EXECUTORCH, POM, Kotlin, core, executorch, kotlin
from tests.android_library.elf import carry
from tests.harness.parts import fp32, provisioned, quantised
from tests.harness.virtual.conftest import started
from tests.provision import jars, npm_package

__all__ = ["core", "executorch", "fp32", "kotlin", "provisioned", "quantised"]
HERE = Path(__file__).parent
PLACE = "/data/local/tmp/lab"
JAVA = "/usr/lib/jvm/java-21-openjdk-arm64"
# Imports that glibc has under the same name and with another meaning. Without sysconf's the library
# counts no processors, makes no thread pool and aborts in fp32's attention, which asks for it:
# "In function get_thread_count(), assert failed (threadpool_.get()): Invalid threadpool!".
RENAMED = {
    name: f"bionic_{name}"
    for name in ("sysconf", "vfprintf", "fprintf", "fwrite", "fputs", "fputc", "fflush")
} | {"pthread_mutex_init": "bionic_mutex_init", "strerror_r": "bionic_strerror_r"}
# The names under which Android's libraries ask for the C library, and glibc's.
_NAMES = {"libm.so": "-lm", "libdl.so": "-ldl", "liblog.so": "-lc", "libandroid.so": "-lc"}


def libraries(folder: Path) -> set[str]:
    """Fill a folder with what the library is loaded with; return all imports."""
    archive = next(jars(POM.with_name("library-pom.xml")).glob("fbjni-*.aar"))
    android = npm_package(*EXECUTORCH) / "package/third-party/android/libs/executorch"
    sources = {"libexecutorch.so": android / "arm64-v8a/libexecutorch.so"}
    with zipfile.ZipFile(archive) as files:
        for name in ("libfbjni.so", "libc++_shared.so"):
            sources[name] = folder / f"{name}.android"
            sources[name].write_bytes(files.read(f"jni/arm64-v8a/{name}"))
    imports: set[str] = set()
    for name, source in sources.items():
        imports |= set(carry(source, folder / name, RENAMED))
        if source.parent == folder:
            source.unlink()
    shutil.copy2(folder / "libexecutorch.so", folder / "libexecutorch_jni.so")
    _compile(folder / "libc.so", HERE / "bionic.c", "-lc", "-lm", "-ldl")
    _compile(folder / "libguard.so", HERE / "guard.c")
    for name, library in _NAMES.items():
        _compile(folder / name, HERE / "guard.c", library, "-DNOTHING")
    return imports


def _compile(out: Path, source: Path, *more: str) -> None:
    tools = toolchain("aarch64")
    flags = ["-x", "c", "-O1", "-fPIC", "-shared", f"-Wl,-soname,{out.name}", "-Wl,--no-as-needed"]
    argv = [*tools.compiler, *flags, str(source), "-x", "none", *more, "-o", str(out)]
    done = subprocess.run(
        argv, env=os.environ | tools.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Lab:
    """The phone, ready to run the app's harness on the library."""

    adb: Adb
    jars: tuple[str, ...]
    imports: frozenset[str]

    def java(self, *arguments: str, timeout_s: float = 300) -> Finished:
        """Run the driver."""
        library = f"{PLACE}/lib"
        env = ("env", f"LD_PRELOAD={library}/libguard.so", f"LD_LIBRARY_PATH={library}")
        # One quick compiler and one collector: emulated, a second of each is a minute.
        fast = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m")
        path = ("-cp", ":".join(f"{PLACE}/jars/{name}" for name in self.jars))
        java = (f"{JAVA}/bin/java", *fast, f"-Djava.library.path={library}", *path)
        command = (*env, *java, "mobilepack.lab.LabKt", *arguments)
        return self.adb.shell(command, timeout_s=timeout_s)


@pytest.fixture(scope="session")
def driver(
    kotlin: Kotlin, core: Path, executorch: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ...]:
    """Compile the driver with the app's own engine; return the class path."""
    folder = tmp_path_factory.mktemp("driver")
    archive = next(jars(POM.with_name("library-pom.xml")).glob("fbjni-*.aar"))
    fbjni = folder / "fbjni.jar"
    fbjni.write_bytes(zipfile.ZipFile(archive).read("classes.jar"))
    loader = next(jars(POM.with_name("library-pom.xml")).glob("nativeloader-*.jar"))
    app = [
        DEMO / f"app/src/main/kotlin/mobilepack/demo/Module{n}.kt" for n in ("Engine", "Methods")
    ]
    needed = [core, executorch, fbjni, loader, *kotlin.libraries]
    kotlin.compile(folder / "lab.jar", [HERE / "Lab.kt", *app], needed)
    return (folder / "lab.jar", *needed)


@pytest.fixture(scope="session")
def lab(
    provisioned: object, driver: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """Start a phone that has Java, the library and the driver."""
    adb = AdbServer().client()
    made = phones.create(f"library-{os.getpid()}")
    try:
        java = unpacked(SUITE, ["openjdk-21-jre-headless"])
        _join(java, made.folder / "root")
        here = tmp_path_factory.mktemp("lab")
        (here / "lib").mkdir()
        imports = libraries(here / "lib")
        (here / "jars").mkdir()
        for path in driver:
            shutil.copy2(path, here / "jars")
        started(made, adb)
        phone = adb.on(made.serial)
        phone.push(here, PLACE, timeout_s=120)
        yield Lab(phone, tuple(path.name for path in driver), frozenset(imports))
    finally:
        phones.delete(made, adb)


def _join(source: Path, target: Path) -> None:
    """Add to a phone's root what it does not have, by hard links."""
    for path in sorted(source.rglob("*")):
        there = target / path.relative_to(source)
        if path.is_symlink() and not os.path.lexists(there):
            there.symlink_to(path.readlink())
        elif path.is_dir() and not path.is_symlink():
            there.mkdir(exist_ok=True)
        elif not os.path.lexists(there):
            os.link(path, there)
