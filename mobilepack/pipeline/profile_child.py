"""The child that profiles a program: `python -m mobilepack.pipeline.profile_child PACKAGE ASKED`.

ASKED is a JSON object: prompt, steps, repetitions, threads, result. The runtime's own chatter goes
where its stdout goes; the result is a file.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilepack.contract.base import write_atomically
from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import open_package
from mobilepack.contract.profile import Profile
from mobilepack.pipeline.breakdown import Event, phase_of

_OPERATORS = (
    "extension/llm/custom_ops/libcustom_ops_aot_lib.*",
    "kernels/quantized/libquantized_ops_aot_lib.*",
)


def main(argv: Sequence[str]) -> int:
    """Profile and write the result."""
    package, asked = open_package(Path(argv[0])), json.loads(argv[1])
    bindings = _runtime()
    bindings._unsafe_reset_threadpool(asked["threads"])
    program = str(package.program)
    prompt = asked["prompt"]
    prefill = _events(bindings, program, [(prompt, 0)] * asked["repetitions"], prompt)
    steps = [(prompt, 0), *((1, prompt + at) for at in range(asked["steps"]))]
    decode = _events(bindings, program, steps, 1)
    linears = linear_order(package.root, package.manifest)
    profile = Profile(
        plan_id=package.manifest.plan_id,
        threads=asked["threads"],
        phases=(
            phase_of("prefill", prompt, prefill, linears),
            phase_of("decode", 1, decode, linears),
        ),
    )
    write_atomically(Path(asked["result"]), profile.to_json())
    return 0


def _runtime() -> Any:
    import executorch
    import torch
    from executorch.extension.pybindings import _C as bindings  # noqa: N811 - upstream's name

    root = Path(next(iter(executorch.__path__)))
    for pattern in _OPERATORS:
        torch.ops.load_library(next(root.glob(pattern)))
    return bindings


def _events(
    bindings: Any, program: str, calls: Sequence[tuple[int, int]], tokens: int
) -> list[Event]:
    """Return the events of the calls with so many tokens, all of which take the same way."""
    import torch

    module = bindings._load_for_executorch(program, enable_etdump=True)
    for count, position in calls:
        ids = torch.arange(count).remainder(251)[None]
        module.run_method("forward", (ids, torch.tensor([position])))
    with tempfile.NamedTemporaryFile(suffix=".etdump") as file:
        module.write_etdump_result_to_file(file.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from executorch.devtools import Inspector

            blocks = Inspector(etdump_path=file.name).event_blocks
    ran = [block for block in blocks if block.name == "Execute"]
    # calls that go another way through the program are blocks of their own: the commonest counts
    most = max(ran, key=lambda block: len(block.events[0].perf_data.raw))
    return [Event(event.name, tuple(event.perf_data.raw)) for event in most.events]


def linear_order(folder: Path, manifest: Manifest) -> tuple[str, ...] | None:
    """Return the weights of the linear maps in the order in which the program runs them.

    The graph is made again from the package's `config.json`, without weights. None if that is not
    the graph of the program.
    """
    from mobilepack.backends.xnnpack.lower import Lowering
    from mobilepack.models.config import read_json
    from mobilepack.models.families.registry import family_of
    from mobilepack.models.spec import parameter_shapes
    from mobilepack.pipeline.export import export_decoder

    plan = manifest.plan
    if plan.compression is not None or plan.lowering != "fast":
        return None
    config = read_json(folder / "config.json")
    spec = family_of(config).read(config)
    exported = export_decoder(spec, plan.max_seq_len, plan.prefill_chunk)
    names = {name: name for name in parameter_shapes(spec)}
    if spec.tied_head:
        names["head.weight"] = "embed.weight"
    lowered = Lowering(exported, plan.recipe, names, plan.max_seq_len).run({})
    return lowered.linears


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
