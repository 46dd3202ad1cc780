"""A QNN package's program made again, with inner results as outputs, to be looked into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mobilepack.contract.manifest import Manifest
from mobilepack.contract.package import MANIFEST
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.lower import runner_metadata
from mobilepack.pipeline.qnn import LOG, request_of, write_weights


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
    from mobilepack.backends.qnn.lowering import run_lowering
    from mobilepack.backends.qnn.probe import usable_sdk
    from mobilepack.backends.qnn.request import Taps

    plan = manifest.plan
    taps = Taps(tuple(names), dict(manifest.activation_ranges))
    request = replace(request_of(model, plan, runner_metadata(model, plan), folder), taps=taps)
    write_weights(model, request.shared, request.weights)
    try:
        made = run_lowering(request, usable_sdk(None), folder / LOG, lambda stage, share: None)
    finally:
        request.weights.unlink()
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
