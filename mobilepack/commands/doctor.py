"""Say what works on this machine, what is missing, what for, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilepack.errors import MobilepackError

Status = Literal["ok", "warning", "missing"]

SUPPORTED_PYTHON = ((3, 11), (3, 14))  # from, and the first that is too new (pyproject.toml)
ENABLES = {
    "torch": "export, and the eager reference of `verify`",
    "executorch": "writing and running programs",
    "torchao": "the reference quantiser (`--lowering reference`)",
    "safetensors": "the reference reader that tests compare with",
    "tokenizers": "tokenizer.json of checkpoints",
    "sentencepiece": "tokenizer.model of checkpoints",
    "huggingface-hub": "models by hub id",
    "onnxscript": "target onnx (pip install 'mobilepack[onnx]')",
    "transformers": "parity with Hugging Face's own code (tests only)",
}
REINSTALL = "run `make env`, or install mobilepack again"
GIGABYTE = 10**9
PROBE = ("-m", "mobilepack.pipeline.probe")
PROBE_TIMEOUT_S = 120  # importing torch from a cold, slow disk


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        found: What is there, in words.
        enables: What it is needed for.
        next: What to do; empty when nothing is to be done.
    """

    name: str
    status: Status
    found: str
    enables: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What ExecuTorch's runtime registered in a child process, or why it did not start."""

    backends: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    cpu_capability: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks; `complete` when nothing that a verb needs is missing."""

    checks: tuple[Check, ...]

    @property
    def complete(self) -> bool:
        """Whether no check says `missing`."""
        return all(check.status != "missing" for check in self.checks)


def doctor(
    probe: Callable[[], Runtime] | None = None,
    folder: Path | None = None,
    caches: Mapping[str, Path] | None = None,
    qnn: Callable[[], Check] | None = None,
) -> Diagnosis:
    """Look at this machine.

    Args:
        probe: Starts the runtime in a child process and reports; `probe_runtime` by default.
        folder: Where packages would be written; the current folder by default.
        caches: Cache folders by what they hold; `cache_folders()` by default.
        qnn: Looks at Qualcomm's libraries; None opens a device with them.
    """
    runtime = (probe or probe_runtime)()
    checks = [check_python(), *check_packages(), *check_runtime(runtime), check_embedded_model()]
    checks += [check_qnn() if qnn is None else qnn(), check_apple()]
    checks += [check_disk(folder or Path.cwd()), check_memory(), check_cpu()]
    kept = cache_folders() if caches is None else caches
    checks += [check_cache(name, path) for name, path in kept.items()]
    checks += [check_uv()]
    return Diagnosis(tuple(checks))


def check_python() -> Check:
    """Check the interpreter's version."""
    oldest, too_new = SUPPORTED_PYTHON
    good = oldest <= sys.version_info[:2] < too_new
    found = f"{platform.python_version()} ({sys.executable})"
    todo = "" if good else "make an environment with Python 3.11, 3.12 or 3.13"
    return Check("python", "ok" if good else "missing", found, "everything", todo)


def check_packages() -> list[Check]:
    """Check the libraries that verbs lean on against the versions this release was made for."""
    pins = pinned_versions()
    return [check_package(name, pins.get(name), enables) for name, enables in ENABLES.items()]


def pinned_versions() -> dict[str, str]:
    """Return the exactly pinned dependencies of the installed mobilepack, by name."""
    try:
        requirements = importlib.metadata.requires("mobilepack") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    matches = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", text) for text in requirements)
    return {match[1]: match[2] for match in matches if match}


def check_package(name: str, pin: str | None, enables: str) -> Check:
    """Check one library; a local build label (`+cpu`) does not count as another version."""
    optional = "tests only" in enables
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        absent: Status = "warning" if optional else "missing"
        return Check(name, absent, "not installed", enables, REINSTALL)
    if pin and version.partition("+")[0] != pin:
        return Check(name, "warning", f"{version}, made for {pin}", enables, REINSTALL)
    if name == "torch" and has_cuda_libraries():
        todo = "the CPU build imports in half the time: UV_TORCH_BACKEND=cpu, and install again"
        return Check(name, "warning", f"{version}, with CUDA libraries", enables, todo)
    return Check(name, "ok", version, enables)


def has_cuda_libraries() -> bool:
    """Say whether torch came with the CUDA runtime's wheels."""
    return any(
        str(dist.metadata["Name"]).startswith("nvidia-cuda-runtime")
        for dist in importlib.metadata.distributions()
    )


def check_runtime(runtime: Runtime) -> list[Check]:
    """Check that the runtime starts, runs XNNPACK programs and knows the LLM operators."""
    starts = "verify, bench and chat on this machine"
    if runtime.failure:
        return [Check("executorch runtime", "missing", runtime.failure, starts, REINSTALL)]
    xnnpack = "XnnpackBackend" in runtime.backends
    custom = "llama::custom_sdpa.out" in runtime.operators
    names = ", ".join(runtime.backends) or "no backend"
    return [
        Check(
            "executorch runtime",
            "ok",
            f"starts in a child process; {len(runtime.operators)} operators",
            starts,
        ),
        _present("xnnpack backend", xnnpack, f"registered: {names}", "target xnnpack"),
        _present(
            "llm operators",
            custom,
            "llama::custom_sdpa " + ("loads" if custom else "does not load"),
            "`--lowering reference` programs",
        ),
    ]


def _present(name: str, good: bool, found: str, enables: str) -> Check:
    return Check(name, "ok" if good else "missing", found, enables, "" if good else REINSTALL)


def check_qnn(probe: bool = True) -> Check:
    """Check Qualcomm's libraries: found, of the version that works, and able to open a device.

    Args:
        probe: Whether a device is opened, in a child process; once it worked it is not done again.
    """
    from mobilepack.backends.qnn.probe import usable_sdk
    from mobilepack.backends.qnn.sdk import find_sdk

    enables = "target qnn: lowering, and the HTP emulator of `verify`"
    try:
        sdk = usable_sdk() if probe else find_sdk()
    except MobilepackError as err:
        return Check("qnn libraries", "warning", f"{err.what}: {err.why}", enables, err.next)
    where = "from PyPI" if sdk.origin == "package" else "your own"
    found = f"QNN {sdk.version}, {where}, laid out at {sdk.root}"
    return Check("qnn libraries", "ok", found, enables)


def check_apple() -> Check:
    """Look for Xcode's tools, go-ios or pymobiledevice3."""
    from mobilepack.commands.apple import apple_tools

    found, todo = apple_tools()
    enables = "simulators and iPhones: `-d simulator`, `-d UDID`"
    return Check("apple devices", "warning" if todo else "ok", found, enables, todo)


def check_embedded_model() -> Check:
    """Check that the model inside the package is whole."""
    from mobilepack.models.zoo import embedded_path

    folder = embedded_path()
    absent = [n for n in ("config.json", "tokenizer.json") if not (folder / n).is_file()]
    absent += [] if any(folder.glob("*.safetensors")) else ["model.safetensors"]
    found = f"lacks {', '.join(absent)}" if absent else str(folder)
    return _present("embedded model", not absent, found, "every verb without a MODEL")


def check_disk(folder: Path) -> Check:
    """Check the free space where packages would be written."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    enables = "packages: about 0.7 bytes per parameter"
    found = f"{free / GIGABYTE:.1f} GB free at {existing}"
    if free < GIGABYTE:
        return Check("disk", "warning", found, enables, "free some space, or build elsewhere (-o)")
    return Check("disk", "ok", found, enables)


def check_memory() -> Check:
    """Check the memory that a build could take now."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / GIGABYTE:.1f} of {memory.total / GIGABYTE:.1f} GB available"
    if memory.available < 2 * GIGABYTE:
        todo = "close other programs; `mobilepack plan MODEL` says what a build takes"
        return Check("memory", "warning", found, "building and verifying", todo)
    return Check("memory", "ok", found, "building and verifying")


def check_cpu() -> Check:
    """Name the CPU's instructions that XNNPACK's int8 kernels use; their absence costs speed."""
    wanted = ("avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp", "asimd")
    flags = cpu_flags()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    has = [name for name in wanted if name in flags]
    found = f"{cores} cores, {platform.machine()}, {' '.join(has) or 'features unknown'}"
    slow = bool(flags) and not has
    todo = "timings of this machine will be far below a phone's" if slow else ""
    return Check("cpu", "warning" if slow else "ok", found, "fast int8 kernels", todo)


def cpu_flags() -> frozenset[str]:
    """Return the feature names of /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    rows = (line.partition(":") for line in text.splitlines())
    return frozenset(
        word
        for key, _, value in rows
        if key.strip() in ("flags", "Features")
        for word in value.split()
    )


def check_cache(name: str, path: Path) -> Check:
    """Check that a cache folder can be written, now or once it is made."""
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    good = os.access(existing, os.W_OK) and existing.is_dir()
    found = f"{path}" if good else f"{path} cannot be written"
    todo = "" if good else "correct the folder's permissions"
    return Check(f"{name} cache", "ok" if good else "warning", found, "not doing work twice", todo)


def check_uv() -> Check:
    """Look for uv, which makes the development and benchmark environments."""
    path = shutil.which("uv")
    found, todo = path or "not on PATH", "" if path else "`make env` brings its own"
    return Check("uv", "ok" if path else "warning", found, "`make env`, peers' benchmarks", todo)


def probe_runtime(arguments: Sequence[str] = PROBE) -> Runtime:
    """Start the runtime in a child process, where a crash is a finding.

    Args:
        arguments: Of the Python that prints what the runtime registered.
    """
    from mobilepack.process import run

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = run([sys.executable, *arguments], timeout_s=PROBE_TIMEOUT_S, env=environment)
    lines = done.stdout.splitlines()
    if done.timed_out or done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        quoted = f": {said[-1]}" if said else ""
        return Runtime(failure=f"the child process ended with {done.ending}{quoted}")
    answer = json.loads(lines[-1])
    return Runtime(
        backends=tuple(answer["backends"]),
        operators=tuple(answer["operators"]),
        cpu_capability=str(answer["cpu_capability"]),
    )


def cache_folders() -> dict[str, Path]:
    """Return the folders that verbs keep things in between runs."""
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HF_HOME")
    home = Path.home() / ".cache" / "huggingface"
    return {"hub": Path(hub) if hub else home}
