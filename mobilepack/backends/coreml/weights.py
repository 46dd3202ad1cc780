"""The numbers that Core ML programs compute with: their own weights, decompressed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch

from mobilepack.backends.coreml.storage import read_label
from mobilepack.errors import BuildError
from mobilepack.mil.decompress import CompressedConstant, compressed_constants
from mobilepack.mil.program import Function
from mobilepack.models.source import Source, View

_CONVERTED = "p_decoder_"  # how coremltools' own conversion begins a parameter's name


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of a parameter from `start` on."""

    start: int
    constant: CompressedConstant

    @property
    def stop(self) -> int:
        """One past the last row."""
        return self.start + self.constant.type.sizes[0]


class PackagedParameters(View):
    """A model's parameters where the weights that programs have compressed replace the originals.

    What a program rounds to half precision only keeps its float32 value: the comparison is with
    a model that computes exactly, with the numbers that compression chose. One piece is
    decompressed at a time.
    """

    def __init__(self, original: Source, functions: Iterable[Function]) -> None:
        """Find every compressed weight.

        Args:
            original: The model's parameters.
            functions: That hold the model together, each weight once at least.

        Raises:
            BuildError: A compressed weight belongs to no parameter.
        """
        super().__init__(original)
        found: dict[str, dict[int, _Piece]] = {}
        known = {name.replace(".", "_"): name for name in original.names()}
        for function in functions:
            for constant in compressed_constants(function):
                label, start = _label(constant.name)
                if label not in known:
                    raise BuildError(
                        "unknown-weight",
                        "the Core ML program has a compressed weight that the model lacks",
                        why=f"it is called {constant.name}",
                        next="report this with the model",
                    )
                name = original.identity(known[label])
                found.setdefault(name, {})[start] = _Piece(start, constant)
        self._pieces = {name: sorted(p.values(), key=_start) for name, p in found.items()}
        self._loaded: tuple[object, torch.Tensor] = (None, torch.empty(0))

    @property
    def compressed(self) -> Collection[str]:
        """Names of the parameters that the programs have compressed."""
        names = self._base.names()
        return [name for name in names if self._base.identity(name) in self._pieces]

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows as float32."""
        parts, at = [], start
        for piece in self._pieces.get(self._base.identity(name), ()):
            first, end = max(piece.start, at), min(piece.stop, stop)
            if first < end:
                if first > at:
                    parts.append(self._base.rows(name, at, first))
                parts.append(self._whole(piece)[first - piece.start : end - piece.start])
                at = end
        if at < stop or not parts:
            parts.append(self._base.rows(name, at, stop))
        shape = (stop - start, *self.shape(name)[1:])
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(shape)

    def _whole(self, piece: _Piece) -> torch.Tensor:
        key = piece.constant.key
        if self._loaded[0] != key:
            values = piece.constant.load().float()
            self._loaded = (key, values.reshape(values.shape[0], -1))
        return self._loaded[1]


def _start(piece: _Piece) -> int:
    return piece.start


def _label(name: str) -> tuple[str, int]:
    """Return the parameter, its points written as underscores, and the first row."""
    found = read_label(name)
    if found is not None:
        return found
    plain = name.removeprefix(_CONVERTED).removesuffix("_quantized").removesuffix("_to_fp16")
    return plain, 0
