"""The parts of ExecuTorch that describe and serialise programs, without the rest of it.

Importing `executorch.exir` runs its `__init__`, which loads torchao, torch.inductor and the edge
dialect: 4.5 s of CPU (ExecuTorch 1.5.1), more than lowering a model takes us. The schema and
serialiser modules need none of that, so their packages stand in empty while they are imported, and
are forgotten afterwards: a later `import executorch.exir` gets the real one.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGES = ("executorch.exir", "executorch.backends.xnnpack")


@contextmanager
def _without_package_init(names: tuple[str, ...]) -> Iterator[None]:
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"no package {name}")
        stand_in = types.ModuleType(name)
        stand_in.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = stand_in
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)
            parent, _, child = name.rpartition(".")
            if hasattr(sys.modules.get(parent), child):
                delattr(sys.modules[parent], child)


with _without_package_init(_PACKAGES):
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as xnn
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as _graphs
    from executorch.exir import schema as et
    from executorch.exir._serialize import _flatbuffer as _flatc
    from executorch.exir._serialize import _program as serialise
    from executorch.exir._serialize._dataclass import _json_to_dataclass
    from executorch.exir._serialize.padding import aligned_size, pad_to
    from executorch.exir.scalar_type import ScalarType

    _graphs._get_schema_bytes()  # is kept by the module; later it would look for its package

serialize_xnnpack_binary = _graphs.serialize_xnnpack_binary


def deserialize_xnnpack_graph(flatbuffer: bytes) -> xnn.XNNGraph:
    """Return the graph that a flatbuffer holds, as `serialize_xnnpack_binary` takes it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(_graphs._get_schema_bytes())
        (folder / "graph.bin").write_bytes(flatbuffer)
        paths = (name, str(folder / "schema.fbs"), str(folder / "graph.bin"))
        _flatc._flatc_decompile(*paths, ["--raw-binary"])
        return _json_to_dataclass(json.loads((folder / "graph.json").read_bytes()), xnn.XNNGraph)


__all__ = [
    "ScalarType",
    "aligned_size",
    "deserialize_xnnpack_graph",
    "et",
    "pad_to",
    "serialise",
    "serialize_xnnpack_binary",
    "xnn",
]
