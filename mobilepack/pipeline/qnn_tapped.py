"""A QNN package's program made again, with inner results as outputs, to be looked into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.lower import runner_metadata
from mobilepack.pipeline.package import PROGRAM
from mobilepack.soc import load_soc

if TYPE_CHECKING:
    from mobilepack.backends.qnn.request import Precision

_LOG = "qnn.log"


@dataclass(frozen=True, slots=True)
class Tapped:
    """A tapped program.

    Attributes:
        root: A folder with a manifest that says how to call it, and the program.
        program: The program.
        manifest: Its methods' last outputs are those that were tapped.
        differences: What of the package's graphs and weights is not as it was built.
    """

    root: Path
    program: Path
    manifest: Manifest
    differences: tuple[str, ...]


def make_tapped(
    model: LoadedModel, manifest: Manifest, names: Sequence[str], folder: Path
) -> Tapped:
    """Compile a package's graphs once more.

    Args:
        model: What it was built from.
        manifest: The package's.
        names: Of the tensors that become outputs; those of `backends.qnn.landmarks`.
        folder: Where all goes.

    Raises:
        BuildError: The child failed.
        MissingError: Qualcomm's libraries are not here.
    """
    from safetensors.torch import save_file

    from mobilepack.backends.qnn.lowering import run_lowering
    from mobilepack.backends.qnn.probe import usable_sdk
    from mobilepack.backends.qnn.request import LowerRequest, Taps
    from mobilepack.models.spec import parameter_shapes

    plan, soc = manifest.plan, load_soc(manifest.plan.soc_model or "")
    owners: dict[str, str] = {}
    for name in parameter_shapes(model.spec):
        owners.setdefault(model.weights.identity(name), name)
    weights = folder / "weights.safetensors"
    save_file({name: model.weights.tensor(name) for name in owners.values()}, weights)
    request = LowerRequest(
        spec=model.spec,
        weights=weights,
        shared={
            name: owner
            for name in parameter_shapes(model.spec)
            if (owner := owners[model.weights.identity(name)]) != name
        },
        precision=cast("Precision", plan.recipe.linear),
        max_seq_len=plan.max_seq_len,
        prefill_tokens=plan.prefill_chunk,
        soc_model=soc.model,
        heads="together",
        rows=(),
        passages=(),
        metadata=runner_metadata(model, plan),
        out=folder / PROGRAM,
        block=plan.recipe.group_size,
        context_limit_bytes=int(soc.context_limit_gb * 1e9),
        taps=Taps(tuple(names), dict(manifest.activation_ranges)),
    )
    try:
        made = run_lowering(request, usable_sdk(None), folder / _LOG, lambda stage, share: None)
    finally:
        weights.unlink()
    methods = tuple(
        own.model_copy(update={"outputs": own.outputs + more.outputs})
        for own, more in zip(manifest.methods, made.methods, strict=True)
    )
    called = manifest.model_copy(update={"methods": methods})
    (folder / MANIFEST).write_text(called.to_json())
    differences = _differences(manifest, made.graphs_sha256, made.weights_sha256)
    return Tapped(folder, request.out, called, differences)


def _differences(manifest: Manifest, graphs: dict[str, str], weights: str) -> tuple[str, ...]:
    npu = manifest.npu
    if npu is None:
        return ()
    found = [
        f"its {name} graph is not the one that this version of mobilepack makes"
        for name, sha256 in graphs.items()
        if npu.graphs_sha256.get(name) != sha256
    ]
    if npu.weights_sha256 != weights:
        found.append("its weights are not those that this version makes of the checkpoint")
    return tuple(found)
