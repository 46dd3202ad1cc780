"""Show what is in a checkpoint or in a package, without building or running anything."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilepack.commands.components import COMPONENTS, component_of
from mobilepack.contract.manifest import Licence, Manifest
from mobilepack.contract.package import MANIFEST, open_package
from mobilepack.models.checkpoint import TOKENIZER_FILES
from mobilepack.models.layer_spec import LayerSpec
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.weights import LoadedModel, Weights, open_model
from mobilepack.models.zoo import embedded_path
from mobilepack.report.runs import Runs, read_runs


@dataclass(frozen=True, slots=True)
class StoredComponent:
    """Parameters of one kind as a checkpoint stores them."""

    name: str
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LayerKind:
    """Decoder blocks of the same shape."""

    count: int
    layer: LayerSpec


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """A checkpoint.

    Attributes:
        dtypes: Element types of the stored tensors.
        components: By kind; tied tensors count once, under the embedding.
        kv_bytes_per_token: Of an fp32 KV cache.
        chat_template: Whether the tokenizer brings one.
    """

    of: Literal["checkpoint"]
    source: str
    revision: str | None
    folder: Path
    spec: DecoderSpec
    layers: tuple[LayerKind, ...]
    parameters: int
    dtypes: tuple[str, ...]
    components: tuple[StoredComponent, ...]
    kv_bytes_per_token: int
    tokenizer_files: tuple[str, ...]
    chat_template: bool
    licence: Licence


@dataclass(frozen=True, slots=True)
class PackageView:
    """A package whose checksums were all compared."""

    of: Literal["package"]
    root: Path
    manifest: Manifest
    runs: Runs


def inspect(
    path: str | None, *, revision: str | None = None, offline: bool = False
) -> CheckpointView | PackageView:
    """Open a package, else a checkpoint; None is the embedded model.

    Raises:
        UsageError: It is neither, or it is damaged.
        MissingError: The hub or its cache does not have it.
    """
    if path is not None and _holds_package(Path(path)):
        package = open_package(Path(path))
        runs = read_runs(package.root, package.manifest)
        return PackageView("package", package.root, package.manifest, runs)
    source = str(embedded_path()) if path is None else path
    opened = open_model(source, revision=revision, offline=offline)
    try:
        return _checkpoint_view(opened)
    finally:
        opened.close()


def _holds_package(path: Path) -> bool:
    if (path / "config.json").is_file():
        return (path / MANIFEST).is_file()
    return (path / MANIFEST).is_file() or any(path.glob(f"*/{MANIFEST}"))


def _checkpoint_view(opened: LoadedModel) -> CheckpointView:
    checkpoint, spec = opened.checkpoint, opened.spec
    return CheckpointView(
        of="checkpoint",
        source=checkpoint.source,
        revision=checkpoint.revision,
        folder=checkpoint.place.parent if checkpoint.gguf else checkpoint.folder,
        spec=spec,
        layers=layer_kinds(spec.layers),
        parameters=opened.weights.parameters(),
        dtypes=tuple(sorted({checkpoint.info(key).dtype for key in checkpoint.files})),
        components=_components(opened),
        kv_bytes_per_token=sum(2 * 4 * mixer.kv_size for mixer in spec.attentions),
        tokenizer_files=tuple(n for n in TOKENIZER_FILES if (checkpoint.folder / n).is_file()),
        chat_template=_has_chat_template(checkpoint.folder),
        licence=checkpoint.licence,
    )


def layer_kinds(layers: Iterable[LayerSpec]) -> tuple[LayerKind, ...]:
    """Count equal blocks, in the order of their first appearance."""
    counts: dict[LayerSpec, int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return tuple(LayerKind(count, layer) for layer, count in counts.items())


def _components(opened: LoadedModel) -> tuple[StoredComponent, ...]:
    totals = {name: [0, 0, 0] for name in COMPONENTS}
    seen: set[str] = set()
    assert isinstance(opened.weights, Weights)  # noqa: S101 - nothing has pruned it
    for name, source in opened.weights.sources.items():
        identity = opened.weights.identity(name)
        if identity in seen:
            continue
        seen.add(identity)
        stored = [opened.checkpoint.info(key) for key in source.keys]
        parameters = math.prod(source.shape)
        whole = sum(math.prod(info.shape) for info in stored)
        size = sum(info.nbytes for info in stored) * parameters // max(whole, 1)
        total = totals[component_of(name, opened.spec)]
        total[0], total[1], total[2] = total[0] + 1, total[1] + parameters, total[2] + size
    return tuple(StoredComponent(name, *total) for name, total in totals.items())


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    config = folder / "tokenizer_config.json"
    from mobilepack.models.config import read_json

    return config.is_file() and bool(read_json(config).get("chat_template"))
