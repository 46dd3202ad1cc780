"""A loaded program of the static form as a step: the cache lies with us, not with the program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilepack.contract.manifest import Manifest
from mobilepack.harness.runner import Logits, TokenArray
from mobilepack.models.static_session import StaticSession


class StaticProgram:
    """Feeds `prefill` and `decode`; rewinding is free, for positions say what of the cache counts.

    Attributes:
        methods: Names of all methods.
        last: Outputs of the last call; the next one overwrites them.
    """

    def __init__(self, bindings: Any, path: Path, manifest: Manifest) -> None:
        """Load every method.

        Args:
            bindings: ExecuTorch's.
            path: Of the program.
            manifest: Says how its methods are called; `static` is there.
        """
        import torch

        if manifest.static is None:
            raise ValueError("the program is not of the static form")
        self._tensor = torch.from_numpy
        program = bindings._load_program(str(path))  # memory-mapped
        self._program = program  # its methods do not keep it alive
        names = [method.name for method in manifest.methods]
        self._loaded = {name: program.load_method(name) for name in names}
        self.methods = frozenset(names)
        self.last: list[Any] = []
        self._session = StaticSession(manifest.static, manifest.methods, self._run)

    def _run(self, name: str, inputs: Sequence[Any]) -> list[Any]:
        tensors = tuple(self._tensor(np.ascontiguousarray(array)) for array in inputs)
        # Not cloned: the session copies what it keeps before the next call overwrites it.
        made = self._loaded[name](tensors, clone_outputs=False)
        self.last = [output.numpy() for output in made]
        return self.last

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        """Feed tokens [S] from a position on; return the last one's logits [V]."""
        return self._session(tokens, position)
