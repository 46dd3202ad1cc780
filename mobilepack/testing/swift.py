"""Swift for Linux without root: Debian 13's compiler in a folder, entered through namespaces.

Its programs want Debian 13's libraries at their usual places, so they run in user and mount
namespaces whose root is that folder; what they build starts through its loader alone.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from mobilepack.errors import BuildError, MissingError
from mobilepack.harness.provision.debian import Suite, unpacked
from mobilepack.harness.provision.folder import filled_once
from mobilepack.process import Finished, run

SUITE = "trixie"
"""Debian 13 has Swift 6.0.3; Debian 12 has none."""

_PACKAGES = ("swiftlang", "libc6-dev", "libstdc++-14-dev")
_BIN = "/usr/libexec/swift/bin"
# 2.4 GB unpacked, a third of it debugger, editor services, static and embedded libraries.
_DROP = (
    *(f"usr/libexec/swift/bin/{name}" for name in ("lldb*", "clangd", "sourcekit-lsp", "docc")),
    *(f"usr/libexec/swift/lib/{name}" for name in ("liblldb*", "libsourcekitd*", "swift_static")),
    *(f"usr/libexec/swift/lib/swift/{name}" for name in ("embedded", "FrameworkABIBaseline")),
)
_ENTER = """
set -e
root=$1; inside=$2; shift 2
mount -t tmpfs none "$inside"
mkdir "$inside/usr" "$inside/proc" "$inside/dev" "$inside/etc" "$inside/tmp"
for name in lib lib64 bin; do ln -s "usr/$name" "$inside/$name"; done
mount --bind "$root/usr" "$inside/usr"
mount --rbind /proc "$inside/proc"
mount --rbind /dev "$inside/dev"
for folder in $FOLDERS; do mkdir -p "$inside$folder"; mount --bind "$folder" "$inside$folder"; done
exec chroot "$inside" "$@"
"""
_BUILD_S = 600.0


@dataclass(frozen=True, slots=True)
class Swift:
    """A Swift tool chain.

    Attributes:
        root: Debian's files.
    """

    root: Path

    def tool(self, name: str, *arguments: str, folders: tuple[Path, ...]) -> Finished:
        """Run `swiftc`, `swift-build`, `swift-format` and the like; its failure is the caller's.

        Args:
            name: Of the program.
            arguments: Its own.
            folders: It sees these at their own places, and nothing else of this machine.

        Raises:
            MissingError: This machine has no `unshare`, or no user namespaces.
        """
        unshare = shutil.which("unshare")
        if unshare is None:
            raise _no_namespaces("unshare is not on PATH (util-linux)")
        inside = self.root.parent / "inside"
        inside.mkdir(exist_ok=True)
        seen = " ".join(str(folder.resolve()) for folder in folders)
        if any(character.isspace() for folder in folders for character in str(folder.resolve())):
            raise _no_namespaces(f"a path holds a blank: {seen}")
        words = (unshare, "--user", "--map-root-user", "--mount", "sh", "-c", _ENTER, "sh")
        env = {"PATH": f"{_BIN}:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/", "LC_ALL": "C.UTF-8"}
        argv = (*words, str(self.root), str(inside), f"{_BIN}/{name}", *arguments)
        done = run(argv, timeout_s=_BUILD_S, env=env | {"FOLDERS": seen})
        if "unshare failed" in done.stderr or "mount: permission denied" in done.stderr:
            raise _no_namespaces(" ".join(done.stderr.split()))
        return done

    def command(self, program: Path) -> tuple[str, ...]:
        """Return the words that start a program that was built with it, outside of it."""
        libraries = (
            "usr/libexec/swift/lib/swift/linux",
            f"usr/lib/{platform.machine()}-linux-gnu",
        )
        (loader,) = (self.root / "usr/lib64").glob("ld-linux-*.so.*")
        path = ":".join(str(self.root / folder) for folder in libraries)
        return (str(loader), "--library-path", path, str(program))


def _no_namespaces(why: str) -> MissingError:
    return MissingError(
        "no-namespaces",
        "cannot run Debian's Swift on this machine",
        why=why,
        next="allow unprivileged user namespaces, or run mobilepack in a Debian 13 container",
    )


def swift() -> Swift:
    """Return the tool chain, fetched at most once (440 MB from the Debian mirror).

    Raises:
        MissingError: It cannot be fetched.
    """
    machine = Suite.of_this_machine().architecture
    return Swift(unpacked(Suite(SUITE, machine), _PACKAGES, _DROP))


def demo_sources() -> Path:
    """Return ios_demo: packaged, or of a source checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(p for p in (package / "_ios_demo", package.parent / "ios_demo") if p.is_dir())


def built_stand_in(tools: Swift) -> Path:
    """Return HarnessCore's `StandInApp` for this machine, compiled at most once.

    Raises:
        BuildError: The compiler refused it.
    """
    package = demo_sources() / "HarnessCore"
    sources = sorted((package / "Sources").rglob("*.swift"))
    digest = hashlib.sha256()
    for path in (package / "Package.swift", *sources):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    key = (digest.hexdigest(), str(tools.root))
    folder = filled_once("swift-stand-in", key, lambda fresh: _build(tools, package, fresh))
    return folder / "StandInApp"


def _build(tools: Swift, package: Path, folder: Path) -> None:
    scratch = folder / "build"
    scratch.mkdir()
    words = ("--package-path", str(package), "--scratch-path", str(scratch), "--disable-sandbox")
    done = tools.tool("swift-build", *words, "--product", "StandInApp", folders=(package, folder))
    if done.returncode != 0:
        said = [line for line in done.stdout.splitlines() if "error:" in line]
        raise BuildError(
            "harness-core",
            "cannot compile HarnessCore",
            why="; ".join(said[:3]) or done.stderr[-300:] or done.ending,
            next="report this with the compiler's version",
        )
    shutil.copy2(scratch / "debug/StandInApp", folder / "StandInApp")
    shutil.rmtree(scratch)
