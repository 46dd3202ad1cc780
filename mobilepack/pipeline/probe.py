"""Load ExecuTorch's runtime and say what it registered; run as a child, for a crash stays there.

`python -m mobilepack.pipeline.probe` prints one JSON object.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

LIBRARIES = (
    "extension/llm/custom_ops/libcustom_ops_aot_lib",
    "kernels/quantized/libquantized_ops_aot_lib",
)


def main() -> None:
    """Print `{"backends": [...], "operators": [...], "cpu_capability": ...}`."""
    import torch
    from executorch.extension.pybindings import _C  # needs torch's libraries loaded before it

    found = importlib.util.find_spec("executorch")
    places = found.submodule_search_locations if found else None
    for library in LIBRARIES:
        stem = Path(places[0] if places else "") / library
        for path in sorted(stem.parent.glob(f"{stem.name}.*")):
            torch.ops.load_library(str(path))
    answer = {
        "backends": sorted(_C._get_registered_backend_names()),
        "operators": sorted(_C._get_operator_names()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
