"""The Core ML packages inside an ExecuTorch program.

A delegate's blob is a folder with `model.mlpackage` and `metadata.json` (order of inputs and
outputs), or, where methods share weights, `CMJR` and a JSON reference to such a folder among the
program's named data, with the function to call (executorch 1.5.1,
backends/apple/coreml/compiler/coreml_preprocess.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mobilepack.errors import UsageError
from mobilepack.mil.files import Embedded, damaged
from mobilepack.mil.flat_directory import open_flat_directory
from mobilepack.mil.mlpackage import read_package
from mobilepack.mil.program import Program
from mobilepack.mil.pte import PteProgram

BACKEND = "CoreMLBackend"
REFERENCE = b"CMJR"


@dataclass(frozen=True, slots=True)
class CoremlDelegate:
    """A delegate of one method.

    Attributes:
        key: What delegates that share a package have in common.
        function: The package's function that this method calls; None for its default.
    """

    key: str
    program: Program
    function: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(slots=True)
class Delegates:
    """The Core ML delegates of a program, each package read once."""

    pte: PteProgram
    _packages: dict[str, tuple[Program, dict[str, Any]]] = field(default_factory=dict)

    def of(self, method: str) -> tuple[CoremlDelegate | None, ...]:
        """Return a method's delegates in order; None for one of another backend.

        Raises:
            UsageError: There is no such method, or a delegate is damaged.
        """
        if method not in self.pte.methods:
            raise UsageError(
                "unknown-method",
                f"cannot find the method {method!r} in {self.pte.name}",
                why=f"its methods are {', '.join(self.pte.methods)}",
                next="name one of them",
            )
        return tuple(
            self._delegate(f"{self.pte.name}:{method}/{index}", item.blob)
            if item.id == BACKEND
            else None
            for index, item in enumerate(self.pte.methods[method].delegates)
        )

    def packages(self) -> dict[str, Program]:
        """Return every Core ML package of the program, by key.

        Raises:
            UsageError: There is none, or one is damaged.
        """
        for method in self.pte.methods:
            self.of(method)
        if not self._packages:
            used = {d.id for m in self.pte.methods.values() for d in m.delegates}
            raise UsageError(
                "no-coreml-delegate",
                f"cannot find a Core ML program in {self.pte.name}",
                why=f"its delegates are {', '.join(sorted(used)) or 'none'}",
                next="build it with --target coreml, or name an .mlpackage",
            )
        return {key: program for key, (program, _) in self._packages.items()}

    def _delegate(self, name: str, blob: memoryview) -> CoremlDelegate:
        key, function = name, None
        if bytes(blob[:4]) == REFERENCE:
            key, function = self._reference(name, blob)
            blob = self.pte.named_data[key]
        if key not in self._packages:
            files = open_flat_directory(key, blob)
            self._packages[key] = (_package(files), _metadata(files))
        program, metadata = self._packages[key]
        order = metadata.get("methods", {}).get(function) if function else metadata
        if not isinstance(order, dict) or (function and function not in program.functions):
            raise damaged(name, f"it calls the function {function!r}, which its package lacks")
        return CoremlDelegate(
            key,
            program,
            function,
            _names(name, order, "inputNames"),
            _names(name, order, "outputNames"),
        )

    def _reference(self, name: str, blob: memoryview) -> tuple[str, str]:
        try:
            reference = json.loads(bytes(blob[len(REFERENCE) :]))
            key, function = reference["key"], reference["functionName"]
        except (ValueError, TypeError, KeyError) as err:
            raise damaged(
                name, f"its reference to a shared package is not readable: {err}"
            ) from err
        if key not in self.pte.named_data or not isinstance(function, str):
            raise damaged(name, f"it refers to {key!r}, which the program does not hold")
        return key, function


def _package(files: Embedded) -> Program:
    return read_package(files.below("model.mlpackage"))


def _metadata(files: Embedded) -> dict[str, Any]:
    try:
        metadata = json.loads(bytes(files.read("metadata.json")))
    except ValueError as err:
        raise damaged(files.name, f"metadata.json is not JSON: {err}") from err
    if not isinstance(metadata, dict):
        raise damaged(files.name, "metadata.json is not a JSON object")
    return metadata


def _names(name: str, order: dict[str, Any], key: str) -> tuple[str, ...]:
    names = order.get(key)
    if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
        raise damaged(name, f"metadata.json has no {key}")
    return tuple(names)
