"""Debian packages in a folder of the user's, without root and without touching the system.

apt is run with lists, caches and a status file of its own, so it resolves dependencies as for an
empty machine, checks the archive's signature and every package's checksum, and installs nothing:
the packages are unpacked with dpkg-deb. The mirror is the one that this machine's apt uses.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilepack.contract.base import Contract, write_atomically
from mobilepack.errors import MissingError
from mobilepack.harness.provision.folder import filled_once
from mobilepack.process import run

MIRROR_VARIABLE = "MOBILEPACK_DEBIAN_MIRROR"
_APT = Path("/etc/apt")
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ONE_LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+.*\bmain\b")
_TIMEOUT_S = 900.0
_LIST = "packages.json"
_NEVER_READ = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class UnpackedPackage(Contract):
    """One package of an unpacked folder.

    Attributes:
        file: Name of the .deb, which says package, version and architecture.
        sha256: Of the .deb, hex.
    """

    file: str
    sha256: str


class Unpacked(Contract):
    """What an unpacked folder consists of: `packages.json` beside its `root/`."""

    suite: str
    architecture: str
    packages: tuple[UnpackedPackage, ...]


@dataclass(frozen=True, slots=True)
class Suite:
    """A Debian release for one architecture.

    Attributes:
        name: Code name, `trixie`.
        architecture: Debian's name, `arm64`.
    """

    name: str
    architecture: str

    @classmethod
    def of_this_machine(cls) -> Suite:
        """Return the release and architecture whose programs run here.

        Raises:
            MissingError: This is no Debian.
        """
        fields = dict(
            line.split("=", 1) for line in _os_release().splitlines() if "=" in line and line[0]
        )
        machine = platform.machine()
        if fields.get("ID") != "debian" or machine not in _ARCHITECTURES:
            raise _no_apt(f"this is {fields.get('PRETTY_NAME', 'no Debian')} on {machine}")
        return cls(fields["VERSION_CODENAME"].strip('"'), _ARCHITECTURES[machine])


def _os_release() -> str:
    path = Path("/etc/os-release")
    return path.read_text("utf-8") if path.is_file() else ""


def unpacked(suite: Suite, packages: Sequence[str], drop: Sequence[str] = ()) -> Path:
    """Return the root of a folder with packages and their dependencies, fetched at most once.

    Args:
        packages: Names, as for `apt-get install`.
        drop: Patterns of files below the root that are not kept.

    Raises:
        MissingError: apt is absent, or the packages cannot be fetched.
    """
    key = (suite.name, suite.architecture, *sorted(packages), "without", *sorted(drop))
    folder = filled_once("debian", key, lambda fresh: _fill(fresh, suite, packages, drop))
    return folder / "root"


def _fill(folder: Path, suite: Suite, packages: Sequence[str], drop: Sequence[str]) -> None:
    work, root = folder / "apt", folder / "root"
    root.mkdir()
    options = _options(work, suite)
    _apt(("apt-get", *options, "update"))
    fetch = ("install", "--download-only", "--yes", "--no-install-recommends")
    _apt(("apt-get", *options, *fetch, *packages))
    found = sorted((work / "cache/archives").glob("*.deb"))
    for package in found:
        _apt(("dpkg-deb", "--extract", str(package), str(root)))
    for path in [path for pattern in (*_NEVER_READ, *drop) for path in root.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    listed = tuple(UnpackedPackage(file=p.name, sha256=_sha256(p)) for p in found)
    record = Unpacked(suite=suite.name, architecture=suite.architecture, packages=listed)
    write_atomically(folder / _LIST, record.to_json())
    shutil.rmtree(work)


def _options(work: Path, suite: Suite) -> list[str]:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    signed = f" signed-by={_KEYS}" if _KEYS.is_file() else ""
    line = f"deb [arch={suite.architecture}{signed}] {mirror()} {suite.name} main\n"
    (work / "sources.list").write_text(line)
    named = {
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "APT::Architecture": suite.architecture,
        "APT::Architectures": suite.architecture,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
    }
    return [part for name, value in named.items() for part in ("-o", f"{name}={value}")]


def _apt(argv: tuple[str, ...]) -> None:
    if shutil.which(argv[0]) is None:
        raise _no_apt(f"{argv[0]} is not on PATH")
    done = run(argv, timeout_s=_TIMEOUT_S, env=os.environ | {"LC_ALL": "C"})
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        why = "; ".join(said or done.stderr.splitlines()[-2:])
        raise MissingError(
            "packages-unavailable",
            f"cannot fetch packages from {mirror()}",
            why=f"{done.ending}: {why}",
            next=f"check the network, or name another mirror in {MIRROR_VARIABLE}",
        )


def mirror() -> str:
    """Return the archive that packages come from: the environment's, else this machine's own.

    Raises:
        MissingError: No Debian archive is configured.
    """
    named = os.environ.get(MIRROR_VARIABLE)
    if named:
        return named.rstrip("/")
    for uri, suite in _configured():
        if uri.rstrip("/").endswith("/debian") and "security" not in suite:
            return uri.rstrip("/")
    raise _no_apt(f"no Debian archive is configured below {_APT}")


def _configured() -> Iterator[tuple[str, str]]:
    """Yield address and suite of apt's sources, in both of its formats."""
    lists = [_APT / "sources.list", *sorted((_APT / "sources.list.d").glob("*"))]
    for path in lists:
        if path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", path.read_text("utf-8")):
                fields = dict(re.findall(r"^(URIs|Suites):\s*(.+)$", stanza, re.MULTILINE))
                for uri in fields.get("URIs", "").split():
                    yield uri, fields.get("Suites", "")
        elif path.suffix == ".list" and path.is_file():
            for line in path.read_text("utf-8").splitlines():
                if match := _ONE_LINE.match(line.strip()):
                    yield match["uri"], match["suite"]


def _no_apt(why: str) -> MissingError:
    return MissingError(
        "no-debian",
        "cannot fetch Debian packages on this machine",
        why=why,
        next=f"use a Debian host or container, or set {MIRROR_VARIABLE} where apt-get and "
        "dpkg-deb are installed",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
