"""The child process that runs programs on this machine: `python -m mobilepack.harness.host_child`.

`run PACKAGE PLAN RESULT` carries out a run plan; `serve PACKAGE PLAN` loads the plan's program and
answers generation requests. Both speak `talk` over their original stdout; whatever the runtime
prints goes to stderr. Both end when their stdin ends: no orphan outlives its parent.
"""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import importlib.metadata
import os
import platform
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilepack.contract.base import Contract, write_atomically
from mobilepack.contract.manifest import RECURRENT, Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.contract.run_plan import RunPlan
from mobilepack.contract.run_result import Environment, Memory, RunResult
from mobilepack.errors import MobilepackError
from mobilepack.harness import machine, talk
from mobilepack.harness.base import Progress
from mobilepack.harness.mil_program import MilProgram
from mobilepack.harness.onnx_program import OnnxProgram
from mobilepack.harness.runner import Clock, Logits, Refeeding, Step, TokenArray, run_items
from mobilepack.harness.serve import Emit, LineReader, serve
from mobilepack.harness.static_program import StaticProgram
from mobilepack.harness.weight_cache import WeightCache

_OPERATORS = (
    "extension/llm/custom_ops/libcustom_ops_aot_lib.*",
    "kernels/quantized/libquantized_ops_aot_lib.*",
)
_LIBRARIES = {"coreml": ("torch", "numpy"), "onnx": ("onnxruntime", "numpy")}


def main(argv: list[str]) -> int:
    """Run one of the two modes; returns the exit status."""
    faulthandler.enable()
    emit = _own_stdout()
    mode, package, plan_path, *rest = argv
    try:
        if mode == "run":
            done = threading.Event()
            threading.Thread(target=_end_with_parent, args=(done,), daemon=True).start()
            _run(Path(package), Path(plan_path), Path(rest[0]), emit)
            done.set()
        else:
            _serve(Path(package), Path(plan_path), emit)
    except (RuntimeError, MobilepackError) as err:  # the former: how bindings report every failure
        emit(talk.Failed(why=str(err)))
        return 1
    return 0


def _own_stdout() -> Emit:
    """Take stdout for ourselves and give the runtime stderr in its place."""
    stream = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def emit(event: Contract) -> None:
        stream.write(event.model_dump_json() + "\n")

    return emit


def _end_with_parent(done: threading.Event) -> None:
    # sys.stdin would hold a lock that aborts the interpreter's exit: read the descriptor.
    while os.read(0, 4096):
        pass
    os._exit(0 if done.is_set() else 1)


def _run(package: Path, plan_path: Path, result_path: Path, emit: Emit) -> None:
    raw = plan_path.read_bytes()
    plan = RunPlan.parse(raw, str(plan_path))
    manifest = _manifest(package)
    bindings = _runtime_of(manifest)
    conditions = _conditions("before")
    since_load = machine.reset_peak()
    base = machine.resident_bytes()
    opened = _open(bindings, manifest, package, plan)
    loaded = machine.resident_bytes()
    emit(talk.Loaded(load_ns=opened.load_ns, threads=opened.threads))

    def tell(now: Progress) -> None:
        emit(talk.ItemBegins(item=now.item, done=now.done, total=now.total))

    out = run_items(plan, opened.step, tell, Clock())
    peak = machine.peak_resident_bytes()
    conditions |= _conditions("after")
    conditions["weight_cache"] = opened.weight_cache
    conditions["peak_memory"] = "since before the load" if since_load else "since process start"
    result = RunResult(
        plan_sha256=hashlib.sha256(raw).hexdigest(),
        load_ns=opened.load_ns,
        rows=tuple(out.rows),
        generated=tuple(out.generated),
        timings=tuple(out.timings),
        memory=Memory(before_load_bytes=base, after_load_bytes=loaded, peak_bytes=peak),
        environment=_environment(opened, conditions),
    )
    write_atomically(result_path, result.to_json())


def _serve(package: Path, plan_path: Path, emit: Emit) -> None:
    plan = RunPlan.read(plan_path)
    manifest = _manifest(package)
    opened = _open(_runtime_of(manifest), manifest, package, plan)
    emit(talk.Loaded(load_ns=opened.load_ns, threads=opened.threads))
    serve(opened.step, plan.prefill_chunk, emit, LineReader(0))


def _runtime_of(manifest: Manifest | None) -> Any:
    """Load what runs a package; returns ExecuTorch's bindings, None where it takes no part."""
    backend = "" if manifest is None else manifest.plan.backend
    if backend == "coreml":
        importlib.import_module("torch")
        return None
    if backend == "onnx":
        importlib.import_module("onnxruntime")
        return None
    return import_runtime()


def import_runtime() -> Any:
    """Load the runtime's bindings and the operators that programs use beside the delegate.

    The public modules (`executorch.runtime`, `...custom_ops.custom_ops`) do the same and import the
    exporter and torch's compiler with it: 7 s instead of 1.3 s (executorch 1.5.1, 2 cores).
    """
    import executorch
    import torch
    from executorch.extension.pybindings import _C as bindings  # noqa: N811 - upstream's name

    root = Path(next(iter(executorch.__path__)))
    for pattern in _OPERATORS:
        torch.ops.load_library(next(root.glob(pattern)))
    return bindings


class _Program:
    """A loaded program's method as a `Step`."""

    def __init__(self, bindings: Any, path: Path, method: str) -> None:
        import torch

        self._tensor = torch.from_numpy
        self._program = bindings._load_program(str(path))  # memory-mapped
        self._method = self._program.load_method(method)
        count = self._program.num_methods()
        self.methods = frozenset(self._program.get_method_name(i) for i in range(count))

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        where = np.array([position], dtype=np.int64)
        inputs = (self._tensor(tokens[None]), self._tensor(where))
        # Not cloning saves a copy of the vocabulary per token; the next call overwrites it.
        logits: Logits = self._method(inputs, clone_outputs=False)[0].numpy()
        last: Logits = logits.reshape(-1, logits.shape[-1])[-1]
        return last


def _manifest(package: Path) -> Manifest | None:
    path = package / MANIFEST
    return Manifest.read(path) if path.is_file() else None


def _loaded(
    bindings: Any, path: Path, method: str, manifest: Manifest | None, threads: int
) -> _Program | StaticProgram | MilProgram | OnnxProgram:
    backend = "" if manifest is None else manifest.plan.backend
    if manifest is not None and backend == "coreml":
        return MilProgram(path, manifest, threads)
    if manifest is not None and backend == "onnx":
        return OnnxProgram(path, manifest, threads)
    if manifest is not None and manifest.static is not None:
        return StaticProgram(bindings, path, manifest)
    return _Program(bindings, path, method)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A loaded program, the threads of the pool, and what the load took and did.

    Attributes:
        libraries: What computes.
        emulator: What comes before the machine's name if another chip is emulated.
    """

    step: Step
    threads: int
    load_ns: int
    weight_cache: str
    libraries: tuple[str, ...]
    emulator: str


def _open(bindings: Any, manifest: Manifest | None, package: Path, plan: RunPlan) -> _Opened:
    threads = plan.threads or machine.physical_cores()
    if bindings is not None:
        bindings._unsafe_reset_threadpool(threads)
        threads = int(bindings._threadpool_get_thread_count())
    cache = _weight_cache(plan.weight_cache) if plan.weight_cache else None
    start = time.monotonic_ns()
    program = _loaded(bindings, package / plan.program, plan.method, manifest, threads)
    load_ns = time.monotonic_ns() - start
    kept = cache.outcome() if cache else "off"
    step = Refeeding(program, plan.prefill_chunk) if RECURRENT in program.methods else program
    backend = "" if manifest is None else manifest.plan.backend
    libraries = _LIBRARIES.get(backend, ("executorch", "torch", "numpy"))
    emulator = "HTP emulator on " if backend == "qnn" else ""
    return _Opened(step, threads, load_ns, kept, libraries, emulator)


def _weight_cache(program: str) -> WeightCache:
    import executorch

    cache = WeightCache(Path(next(iter(executorch.__path__))) / "lib", program)
    cache.enable()
    return cache


def _conditions(when: str) -> dict[str, str]:
    _, available = machine.memory_bytes()
    return {
        f"load_average_{when}": machine.load_average(),
        f"memory_available_bytes_{when}": str(available),
    }


def _environment(opened: _Opened, conditions: dict[str, str]) -> Environment:
    total, _ = machine.memory_bytes()
    fixed = {
        "governor": machine.governor(),
        "os": platform.platform(),
        "cores": str(os.cpu_count()),
        "memory_bytes": str(total),
    }
    return Environment(
        kind="host",
        representative=False,
        name=f"{opened.emulator}{platform.system()} {platform.machine()}",
        cpu=machine.cpu_name(),
        threads=opened.threads,
        runtime={name: importlib.metadata.version(name) for name in opened.libraries}
        | {"python": platform.python_version()},
        conditions=conditions | fixed,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
