"""Measure a model folder through onnxruntime-genai."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import version
from typing import Any

from benchmarks.workload import Job, run_child


class Genai:
    """Drive a generator with given tokens; nothing is sampled."""

    def __init__(self) -> None:
        self._numpy: Any = import_module("numpy")
        self._library: Any = import_module("onnxruntime_genai")
        self._model: Any = None
        self._generator: Any = None
        self._context = 0

    def versions(self) -> dict[str, str]:
        """Name the runtime's version."""
        return {"onnxruntime-genai": version("onnxruntime-genai")}

    def load(self, job: Job) -> None:
        """Load the model with the job's threads."""
        config = self._library.Config(job.program)
        options = {"session_options": {"intra_op_num_threads": job.threads}}
        config.overlay(json.dumps({"model": {"decoder": options}}))
        self._model = self._library.Model(config)
        self._context = job.context
        self.reset()

    def reset(self) -> None:
        """Make a fresh generator, and with it a fresh KV cache."""
        self._generator = None
        parameters = self._library.GeneratorParams(self._model)
        parameters.set_search_options(max_length=self._context, do_sample=False)
        self._generator = self._library.Generator(self._model, parameters)

    def step(self, tokens: list[int], position: int) -> None:
        """Append tokens, which runs the model; the generator counts positions."""
        del position
        self._generator.append_tokens(self._numpy.array([tokens], dtype=self._numpy.int32))


if __name__ == "__main__":
    run_child(Genai())
