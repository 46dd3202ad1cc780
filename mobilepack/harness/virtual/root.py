"""What a virtual phone is made of: Debian's arm64 adbd and a shell, in the shape of Android."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mobilepack.errors import BuildError
from mobilepack.harness.native.build import toolchain
from mobilepack.harness.provision.debian import Suite, unpacked
from mobilepack.harness.provision.folder import filled_once
from mobilepack.process import run

# Debian 13 is the first release whose adbd speaks shell protocol 2 and comes for arm64 (34.0.5).
SUITE = Suite("trixie", "arm64")
_PACKAGES = ("adbd", "mksh", "toybox", "libstdc++6", "libgomp1")
_EMULATOR_PACKAGES = ("qemu-user", "qemu-user-static")
_OTHER_EMULATORS = ("usr/bin/qemu-[!a]*", "usr/bin/qemu-a[!a]*", "usr/bin/qemu-aarch64_be*")
ADBD = "/usr/lib/android-sdk/platform-tools/adbd"
STATIC_EMULATOR = "usr/bin/qemu-aarch64-static"
COUNTER = "libmobilepack_count.so"
_COUNTER_SOURCE = Path(__file__).with_name("count.cpp")
_FOLDERS = ("system/bin", "data/local/tmp", "sdcard", "proc", "sys", "dev", "tmp", "etc", "host")
_PROPERTIES = {
    "ro.product.name": "mobilepack",
    "ro.product.device": "mobilepack",
    "ro.product.manufacturer": "mobilepack",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.build.version.sdk": "34",
    "ro.build.version.release": "14",
    "ro.mobilepack.virtual": "1",
}
_GETPROP = """\
#!/system/bin/sh
if [ -z "$1" ]; then sed -n 's/^\\([^=]*\\)=\\(.*\\)$/[\\1]: [\\2]/p' /system/build.prop
else sed -n "s/^$1=//p" /system/build.prop; fi
"""


def template() -> Path:
    """Return the root that every phone is a copy of, made at most once.

    Raises:
        MissingError: The packages cannot be fetched.
    """
    packages = unpacked(SUITE, _PACKAGES)
    key = ("1", *_PACKAGES, str(packages.parent.name), _GETPROP, *_FOLDERS)
    return filled_once("virtual-root", key, lambda fresh: _shape(packages, fresh))


def _shape(packages: Path, root: Path) -> None:
    shutil.copytree(packages, root, symlinks=True, dirs_exist_ok=True)
    for name in ("bin", "sbin", "lib"):
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for shell in (root / "usr/bin/sh", root / "system/bin/sh"):
        shell.unlink(missing_ok=True)
        shell.symlink_to("/usr/bin/mksh")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/system/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    _link_tools(root)
    getprop = root / "system/bin/getprop"
    getprop.write_text(_GETPROP)
    getprop.chmod(0o755)


def _link_tools(root: Path) -> None:
    """Link every tool of toybox, as Android does; toybox prints their names."""
    toybox = next(p for p in (root / "usr/bin/toybox", root / "bin/toybox") if p.exists())
    done = run((str(emulator()), "-L", str(root), str(toybox)), timeout_s=60)
    for name in done.stdout.split():
        link = root / "system/bin" / name
        if not link.exists() and not link.is_symlink():
            link.symlink_to(f"/{toybox.relative_to(root)}")


def write_properties(root: Path, name: str, cpu: str) -> None:
    """Write a phone's own properties."""
    own = {"ro.product.model": f"virtual {name}", "ro.soc.model": f"qemu-{cpu}"}
    lines = [f"{key}={value}\n" for key, value in (_PROPERTIES | own).items()]
    (root / "system/build.prop").write_text("".join(lines))


def emulator() -> Path:
    """Return the static emulator of 64-bit ARM programs, of this machine's Debian.

    Raises:
        MissingError: It cannot be fetched.
    """
    return emulator_root() / STATIC_EMULATOR


def emulator_root() -> Path:
    """Return the folder with both emulators and the libraries of the dynamic one."""
    return unpacked(Suite.of_this_machine(), _EMULATOR_PACKAGES, _OTHER_EMULATORS)


def counter() -> Path:
    """Return the folder with the emulator's plug-in that counts instructions, compiled once.

    Raises:
        BuildError: The compiler refused it.
    """
    source = _COUNTER_SOURCE.read_text("utf-8")
    return filled_once("counter", (source,), _compile_counter)


def _compile_counter(folder: Path) -> None:
    import platform

    tools = toolchain("x86_64" if platform.machine() == "x86_64" else "aarch64")
    argv = (
        *tools.compiler,
        *("-std=c++17", "-O2", "-shared", "-fPIC", str(_COUNTER_SOURCE)),
        *("-o", str(folder / COUNTER)),
    )
    done = run(argv, timeout_s=120, env=os.environ | tools.env)
    if done.returncode != 0:
        raise BuildError(
            "counter",
            "cannot compile the instruction counter",
            why=done.stderr[-300:] or done.ending,
            next="report this with the compiler's version",
        )
