"""A phone's files and programs, in a folder of this machine.

Its shell is this machine's own, with a few programs of Android that answer from files; paths below
/data, and those of /proc and /sys that would tell of this machine, are moved into the folder.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path

APP = "mobilepack.demo"
# run-as: system/core/run-as/run-as.cpp of AOSP 14 says these words and ends with 1.
_PROGRAMS = {
    "getprop": """
if [ -z "$1" ]; then sed -n 's/^\\([^=]*\\)=\\(.*\\)$/[\\1]: [\\2]/p' "$ANDROID_ROOT/build.prop"
else sed -n "s/^$1=//p" "$ANDROID_ROOT/build.prop"; fi
""",
    "dumpsys": """
cat "$ANDROID_ROOT/dumpsys/$1" 2>/dev/null || { echo "Can't find service: $1" >&2; exit 20; }
""",
    "settings": """
test "$1" = get && { cat "$ANDROID_ROOT/settings/$2/$3" 2>/dev/null || echo null; }
""",
    "df": """
echo "Filesystem 1K-blocks Used Available Use% Mounted on"
echo "/dev/block/dm-5 $(cat "$ANDROID_ROOT/space") 0 $(cat "$ANDROID_ROOT/space") 0% /data"
""",
    "run-as": """
test -d "$ANDROID_DATA/data/$1" || { echo "run-as: unknown package: $1" >&2; exit 1; }
test -e "$ANDROID_DATA/data/$1.closed" && { echo "run-as: package not debuggable: $1" >&2; exit 1; }
cd "$ANDROID_DATA/data/$1" && shift && exec "$@"
""",
    "am": """
echo "$*" >> "$ANDROID_ROOT/am.log"
case "$1" in instrument) exec "$ANDROID_ROOT/instrument" "$@";; esac
""",
}
_PROPERTIES = {
    "ro.product.model": "Fake phone",
    "ro.product.name": "fake",
    "ro.product.device": "fake",
    "ro.product.cpu.abi": "x86_64",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.soc.model": "FAKE1",
    "ro.boot.qemu": "1",
}
_MEMINFO = "MemTotal:        8000000 kB\nMemAvailable:    6000000 kB\n"
_MOVED = re.compile(
    r"(?<![\w./-])/(?=data(?:/|\b)|proc/meminfo\b|proc/sys/kernel/random/boot_id\b"
    r"|sys/devices/system/cpu/)"
)


class PhoneDisk:
    """The folder."""

    def __init__(self, root: Path, properties: Mapping[str, str]) -> None:
        """Lay it out.

        Args:
            root: A new folder; its path holds nothing that a shell reads.
            properties: Added to, or put over, those of an x86_64 emulator.
        """
        if not re.fullmatch(r"[\w./-]+", str(root)):
            raise ValueError(f"a shell would read {root}")
        self.root = root
        self.system = root / "system"
        for name in ("data/local/tmp", f"data/data/{APP}", "system/bin", "system/dumpsys", "proc"):
            (root / name).mkdir(parents=True)
        for name, script in _PROGRAMS.items():
            self.program(name, script)
        self.properties = _PROPERTIES | dict(properties)
        lines = [f"{key}={value}\n" for key, value in self.properties.items()]
        (self.system / "build.prop").write_text("".join(lines))
        (root / "proc/meminfo").write_text(_MEMINFO)
        self.set_space(64 << 30)
        self.boot()

    def program(self, name: str, script: str) -> None:
        """Give the phone a program, or another one in its place."""
        path = self.system / ("instrument" if name == "instrument" else f"bin/{name}")
        path.write_text(f"#!/bin/sh\n{script.strip()}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def says(self, service: str, text: str) -> None:
        """Let `dumpsys SERVICE` print a text, for example a recorded one."""
        (self.system / "dumpsys" / service).write_text(text)

    def core(self, number: int, **files: object) -> None:
        """Let the kernel say something of a core: `cpu_capacity=379, scaling_cur_freq=300000`."""
        folder = self.root / f"sys/devices/system/cpu/cpu{number}"
        (folder / "cpufreq").mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            place = folder if name == "cpu_capacity" else folder / "cpufreq"
            (place / name).write_text(f"{value}\n")

    def set_space(self, count: int) -> None:
        """Leave so many bytes free for what is pushed."""
        self.free_bytes = count
        (self.system / "space").write_text(str(count // 1024))

    def boot(self) -> None:
        """Get another boot id."""
        path = self.root / "proc/sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{uuid.uuid4()}\n")

    def path(self, remote: str) -> Path:
        """Return where a path of the phone is; only what is below /data is the phone's own.

        Raises:
            PermissionError: It is not.
        """
        whole = os.path.normpath("/" + remote.lstrip("/"))
        if not whole.startswith("/data/"):
            raise PermissionError(13, "Permission denied")
        return self.root / whole.lstrip("/")

    def moved(self, line: str) -> str:
        """Return a command line with the phone's paths moved into the folder."""
        return _MOVED.sub(f"{self.root}/", line)

    def charge(self, count: int) -> None:
        """Take space.

        Raises:
            OSError: There is none left.
        """
        if count > self.free_bytes:
            raise OSError(28, "No space left on device")
        self.set_space(self.free_bytes - count)

    def environment(self) -> dict[str, str]:
        """Return the environment of the phone's programs."""
        return {
            "PATH": f"{self.system}/bin:{os.environ.get('PATH', os.defpath)}",
            "ANDROID_ROOT": str(self.system),
            "ANDROID_DATA": str(self.root / "data"),
            "HOME": str(self.root),
            "TMPDIR": str(self.root / "data/local/tmp"),
        }

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.root, ignore_errors=True)
