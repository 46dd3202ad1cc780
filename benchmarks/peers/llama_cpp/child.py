"""Measure a GGUF file through llama.cpp's C interface, as llama-bench drives it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.workload import Job, run_child

_BATCH = 512  # llama-bench's default n_ubatch


class LlamaCpp:
    """Drive llama.cpp with its logits left where it computes them."""

    def __init__(self) -> None:
        self._lib: Any = import_module("llama_cpp")
        self._model: Any = None
        self._context: Any = None

    def versions(self) -> dict[str, str]:
        """Name the binding's version and the processor features compiled in."""
        features: bytes = self._lib.llama_print_system_info()
        return {
            "llama-cpp-python": str(self._lib.__version__),
            "llama.cpp system info": features.decode().strip(),
        }

    def load(self, job: Job) -> None:
        """Map the model and make a context with the job's threads."""
        lib = self._lib
        lib.llama_backend_init()
        model_parameters = lib.llama_model_default_params()
        model_parameters.use_mmap = True
        self._model = lib.llama_model_load_from_file(job.program.encode(), model_parameters)
        if not self._model:
            raise RuntimeError(f"llama.cpp could not load {job.program}")
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = job.context
        parameters.n_batch = _BATCH
        parameters.n_ubatch = _BATCH
        parameters.n_threads = job.threads
        parameters.n_threads_batch = job.threads
        parameters.flash_attn_type = int(job.flash_attention)
        self._context = lib.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise RuntimeError("llama.cpp could not make a context")

    def reset(self) -> None:
        """Empty the KV cache."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), False)

    def step(self, tokens: list[int], position: int) -> None:
        """Decode a batch; llama.cpp counts positions itself since the last reset."""
        del position
        lib = self._lib
        array = (lib.llama_token * len(tokens))(*tokens)
        status = lib.llama_decode(self._context, lib.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        lib.llama_synchronize(self._context)


if __name__ == "__main__":
    run_child(LlamaCpp())
