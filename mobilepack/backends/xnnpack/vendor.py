"""The parts of ExecuTorch that describe programs and XNNPACK's graphs, without the rest of it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from mobilepack.backends.executorch import ScalarType, et, without_package_init

with without_package_init(("executorch.exir", "executorch.backends.xnnpack")):
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as xnn
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as _graphs
    from executorch.exir._serialize import _flatbuffer as _flatc
    from executorch.exir._serialize._dataclass import _json_to_dataclass

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


__all__ = ["ScalarType", "deserialize_xnnpack_graph", "et", "serialize_xnnpack_binary", "xnn"]
