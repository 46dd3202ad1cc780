"""The numbers that a Core ML program computes with: its own weights, decompressed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from mobilepack.errors import BuildError
from mobilepack.mil.decompress import compressed_constants
from mobilepack.mil.mlpackage import open_mlpackage
from mobilepack.models.streaming import Parameters

_PREFIX = "p_decoder_"


class PackagedParameters:
    """A model's parameters where the weights that a package has compressed replace the originals.

    What the package rounds to half precision only keeps its float32 value: the comparison is with
    a model that computes exactly, with the numbers that compression chose.
    """

    def __init__(self, original: Parameters, package: Path) -> None:
        """Read every compressed weight of a package.

        Raises:
            BuildError: A compressed weight belongs to no parameter.
        """
        self._original = original
        known = {_PREFIX + name.replace(".", "_"): name for name in original.names()}
        program = open_mlpackage(package)
        self._replaced: dict[str, torch.Tensor] = {}
        for label, tensor in compressed_constants(program.functions["decode"]):
            name = known.get(label.removesuffix("_quantized").removesuffix("_to_fp16"))
            if name is None:
                raise BuildError(
                    "unknown-weight",
                    "the Core ML program has a compressed weight that the model lacks",
                    why=f"it is called {label}",
                    next="report this with the model",
                )
            self._replaced[name] = tensor.float().reshape(original.shape(name))

    @property
    def compressed(self) -> Collection[str]:
        """Names of the parameters that the package has compressed."""
        return self._replaced.keys()

    def names(self) -> Collection[str]:
        """Return every parameter's name."""
        return self._original.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape."""
        return self._original.shape(name)

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows as float32."""
        if name in self._replaced:
            return self._replaced[name][start:stop]
        return self._original.rows(name, start, stop)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a whole parameter as float32."""
        found = self._replaced.get(name)
        return self._original.tensor(name) if found is None else found
