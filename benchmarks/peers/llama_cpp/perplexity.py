"""Quantise one of our checkpoints with llama.cpp and measure its perplexity on given token ids.

Run in the llama.cpp environment:
`python -m benchmarks.peers.llama_cpp.perplexity CHECKPOINT IDS.json FORMAT…` prints one JSON
object per format, `{"format": "Q4_K_M", "bytes": …, "perplexity": …}`. IDS.json holds rows of equal
length.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.llama_cpp.convert import write_bf16


class Model:
    """A GGUF file loaded through llama.cpp's C interface."""

    def __init__(self, lib: Any, path: Path, length: int) -> None:
        self._lib = lib
        self._model = lib.llama_model_load_from_file(
            str(path).encode(), lib.llama_model_default_params()
        )
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = length
        parameters.n_threads = parameters.n_threads_batch = 2
        self._context = lib.llama_init_from_model(self._model, parameters)
        self._vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))

    def losses(self, row: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the cross entropy of every token of a row but its first."""
        lib = self._lib
        lib.llama_memory_clear(lib.llama_get_memory(self._context), False)
        batch = lib.llama_batch_init(len(row), 0, 1)
        batch.n_tokens = len(row)
        for index, token in enumerate(row):
            batch.token[index], batch.pos[index] = token, index
            batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, 0, 1
        if lib.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        shape = (len(row), self._vocabulary)
        logits = np.ctypeslib.as_array(lib.llama_get_logits(self._context), shape=shape)
        logits = logits.astype(np.float64)
        top = logits.max(1, keepdims=True)
        total = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
        lib.llama_batch_free(batch)
        result: np.ndarray[Any, np.dtype[np.float64]]
        result = (total[:-1] - logits[np.arange(len(row) - 1), row[1:]]).copy()
        return result


def measure(lib: Any, path: Path, rows: list[list[int]]) -> float:
    """Return exp of the mean cross entropy."""
    model = Model(lib, path, len(rows[0]))
    losses = np.concatenate([model.losses(row) for row in rows])
    return math.exp(float(losses.mean()))


def main() -> None:
    """Measure a checkpoint in every format that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("ids", type=Path)
    parser.add_argument("formats", nargs="+")
    options = parser.parse_args()
    lib: Any = import_module("llama_cpp")
    lib.llama_backend_init()
    quiet = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(quiet, None)
    rows = json.loads(options.ids.read_text())
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "bf16.gguf"
        write_bf16(options.checkpoint, whole)
        for name in options.formats:
            path = whole
            if name != "BF16":
                path = Path(folder) / f"{name}.gguf"
                parameters = lib.llama_model_quantize_default_params()
                parameters.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{name}")
                names = (str(whole).encode(), str(path).encode())
                if lib.llama_model_quantize(*names, parameters) != 0:
                    raise RuntimeError(f"llama.cpp could not quantise to {name}")
            found = {"format": name, "bytes": path.stat().st_size}
            print(json.dumps(found | {"perplexity": measure(lib, path, rows)}), flush=True)


if __name__ == "__main__":
    main()
