"""Measure a .pte program through ExecuTorch's Python runtime.

Serves mobilepack's packages and export_llm's programs alike: method `forward`,
inputs tokens int64 [1, S] and input_pos int64 [1].
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from benchmarks.workload import Job, run_child


class ExecuTorch:
    """Drive one method of a program; the KV cache lives in its mutable buffers."""

    def __init__(self) -> None:
        import executorch.extension.llm.custom_ops.custom_ops  # registers llama::
        import executorch.kernels.quantized  # noqa: F401 - registers quantized_decomposed::
        import torch
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        self._torch: Any = torch
        self._library: Any = portable_lib
        self._runtime: Any = Runtime.get()
        self._program: Any = None
        self._method: Any = None

    def versions(self) -> dict[str, str]:
        """Name the runtime's version."""
        return {name: version(name) for name in ("executorch", "torch")}

    def load(self, job: Job) -> None:
        """Load the program and its method with the job's threads."""
        self._library._unsafe_reset_threadpool(job.threads)
        self._program = self._runtime.load_program(job.program)
        self._method = self._program.load_method("forward")

    def reset(self) -> None:
        """Do nothing: a position at or past which the cache is stale is never read."""

    def step(self, tokens: list[int], position: int) -> None:
        """Run `forward` once; logits come back as a tensor."""
        inputs = (self._torch.tensor([tokens]), self._torch.tensor([position]))
        self._method.execute(inputs)


if __name__ == "__main__":
    run_child(ExecuTorch())
