"""Write what export_llm reads: Meta-named weights, params.json and its configuration.

Run in the export_llm environment. Not counted in its cost.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.peers.export_llm.settings import export_config, meta_name, model_parameters


def main() -> None:
    """Prepare one checkpoint in an output folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--context", type=int, required=True)
    options = parser.parse_args()
    config = json.loads((options.checkpoint / "config.json").read_text(encoding="utf-8"))
    weights: dict[str, torch.Tensor] = {}
    for path in sorted(options.checkpoint.glob("*.safetensors")):
        weights |= {meta_name(name): tensor for name, tensor in load_file(path).items()}
    weights.setdefault("output.weight", weights["tok_embeddings.weight"])
    torch.save(weights, options.output / "meta.pt")
    parameters = json.dumps(model_parameters(config))
    (options.output / "params.json").write_text(parameters, encoding="utf-8")
    settings = export_config(config, str(options.output), options.context)
    # JSON is YAML.
    (options.output / "config.yaml").write_text(json.dumps(settings), encoding="utf-8")


if __name__ == "__main__":
    main()
