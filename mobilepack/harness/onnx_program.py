"""An ONNX package as a step, run by ONNX Runtime on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mobilepack.contract.manifest import Manifest
from mobilepack.harness.runner import Logits, TokenArray


class OnnxProgram:
    """Feeds keys and values back; rewinding cuts them.

    Attributes:
        methods: `forward` alone.
    """

    def __init__(self, path: Path, manifest: Manifest, threads: int) -> None:
        """Open a session.

        Raises:
            RuntimeError: ONNX Runtime cannot load the program.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        (method,) = manifest.methods
        self.methods = frozenset({method.name})
        self._names = [spec.name for spec in method.inputs]
        self._past = [
            np.zeros((*spec.shape[:2], 0, spec.shape[3]), spec.dtype) for spec in method.inputs[2:]
        ]

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        """Feed tokens [S] from a position on; return the last one's logits [V]."""
        places = np.arange(position, position + len(tokens), dtype=np.int64)
        past = [array[:, :, :position] for array in self._past]
        inputs = [np.asarray(tokens, np.int64)[None], places[None], *past]
        logits, *self._past = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        last: Logits = logits.reshape(-1)
        return last
