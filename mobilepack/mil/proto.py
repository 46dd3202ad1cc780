"""coremltools' generated protobuf classes, without importing coremltools.

`import coremltools` takes 6 CPU-seconds (it imports torch, torchao and scikit-learn to look at
their versions) and prints about all of them. The generated modules alone take 0.04 s. They
register the same descriptors, so coremltools may be imported before or after and shares their
classes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

from mobilepack.errors import MissingError

_ALIAS = "_mobilepack_coremltools_proto"


@cache
def messages() -> Any:
    """Return the module of `Model` (and, by its attribute `MIL__pb2`, of the program).

    Raises:
        MissingError: coremltools is not installed.
    """
    if "coremltools.proto" in sys.modules:
        return importlib.import_module("coremltools.proto.Model_pb2")
    spec = importlib.util.find_spec("coremltools")
    if spec is None or spec.origin is None:
        raise MissingError(
            "no-coremltools",
            "cannot read Core ML programs",
            why="coremltools is not installed; it brings the file format's description",
            next="pip install 'mobilepack[coreml]'",
        )
    package = types.ModuleType(_ALIAS)
    package.__path__ = [str(Path(spec.origin).parent / "proto")]
    sys.modules[_ALIAS] = package
    return importlib.import_module(f"{_ALIAS}.Model_pb2")
