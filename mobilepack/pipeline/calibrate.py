"""Decide the integers of the 4-bit weights from what the model sees, layer by layer.

The exported graph is walked once with streamed weights (`models/streaming.py`); each linear map is
calibrated when its input is there. Memory holds the activations of the calibration text and one
matrix; integers go to disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.contract.manifest import Recipe
from mobilepack.models.compression.calibrated import Calibrated
from mobilepack.models.source import Source, chunks

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from mobilepack.models.compression.fold import Folds, Joint
    from mobilepack.models.compression.gptq import Curvature
    from mobilepack.models.streaming import LinearInput

_FOLDS = ".calibrated.folds"


@dataclass(frozen=True, slots=True)
class Task:
    """What is calibrated on what.

    Attributes:
        exported: The decoder's graph.
        weights: Its parameters.
        tables: From `models/tables.py`.
        recipe: How weights are stored; linear maps are 8da4w.
        rows: Token ids of the calibration text, in rows.
    """

    exported: ExportedProgram
    weights: Source
    tables: dict[str, torch.Tensor]
    recipe: Recipe
    rows: Sequence[tuple[int, ...]]


OnShare = Callable[[float], None]


def calibrate(
    method: str, task: Task, folder: Path, on_share: OnShare, *, keep_zeros: bool = False
) -> Calibrated:
    """Return the weights with calibrated integers; a finished calibration is taken as it is.

    Args:
        method: `gptq`, `awq` or `hqq`.
        task: What is calibrated.
        folder: Where integers are kept, in hidden files.
        on_share: Told the share of the graph that is done.
        keep_zeros: Pruned weights stay zero (GPTQ would make use of them).
    """
    from mobilepack.models.compression.fold import Folded, Folds

    path, group = folder / _FOLDS, task.recipe.group_size
    folds = Folds.load(path) if path.exists() else Folds()
    store = Calibrated(Folded(task.weights, folds), folder, group)
    if store.complete:
        return store
    if method == "hqq":
        _hqq(task, store, on_share)
    elif method == "gptq":
        show_linears(task, store, _Gptq(store, keep_zeros), on_share, quantised=True)
    else:
        folds = Folds()
        awq = _Awq(task, store, folds)
        show_linears(task, task.weights, awq, on_share)
        folds.save(path)
        store = Calibrated(Folded(task.weights, folds), folder, group)
        awq.round(store)
    store.finish()
    return store


class _Done(Exception):  # noqa: N818 - not an error
    """The last linear map is calibrated: what it would compute is nobody's concern."""


def show_linears(
    task: Task,
    parameters: Source,
    take: Callable[[LinearInput], None],
    on_share: OnShare,
    *,
    quantised: bool = False,
) -> None:
    """Show every linear map's input, from the first to the last, to `take`.

    Args:
        task: The graph, its tables and what is fed.
        parameters: What the walk reads; `take` may change what it gives from the map on that is
            shown.
        take: Gets the inputs of all rows together.
        on_share: Told the share of the graph that is done.
        quantised: Whether the walk computes as the recipe says, or in fp32.
    """
    from mobilepack.models.streaming import FP32, Lane, run_lanes
    from mobilepack.pipeline.reference import quantisation_of

    last = linear_weights(task.exported)[-1]
    quantisation = quantisation_of(task.recipe) if quantised else FP32

    def on_linear(seen: LinearInput) -> None:
        take(seen)
        if seen.weight == last:
            raise _Done

    lanes = [Lane(row, quantisation) for row in task.rows]
    with contextlib.suppress(_Done):
        run_lanes(task.exported, parameters, task.tables, lanes, on_share, on_linear)


def linear_weights(exported: ExportedProgram) -> list[str]:
    """Return the weights of linear maps in the order of use, shared ones once."""
    import torch

    from mobilepack.models.graph import arguments, operators, parameter_names

    names = parameter_names(exported)
    linear = torch.ops.aten.linear.default
    nodes = (node for node in operators(exported) if node.target is linear)
    return list(dict.fromkeys(names[arguments(node)[1].name] for node in nodes))


def _hqq(task: Task, store: Calibrated, on_share: OnShare) -> None:
    from mobilepack.models.compression.hqq import hqq

    names = [name for name in linear_weights(task.exported) if store.takes(name)]
    for number, name in enumerate(names):
        for start, rows in chunks(task.weights, name):
            store.write(name, start, hqq(rows, store.group(name)))
        on_share((number + 1) / len(names))


class _Gptq:
    """Calibrates each map on inputs that all earlier quantised maps have made."""

    def __init__(self, store: Calibrated, keep_zeros: bool) -> None:
        self._store = store
        self._keep_zeros = keep_zeros
        self._source = ""
        self._curvature: Curvature | None = None
        self._done: set[str] = set()

    def __call__(self, seen: LinearInput) -> None:
        from mobilepack.models.compression.gptq import Curvature, gptq

        store, name = self._store, seen.weight
        if not store.takes(name) or store.owner(name) in self._done:  # shared: by its first use
            return
        self._done.add(store.owner(name))
        if self._curvature is None or seen.source != self._source:  # q, k and v have one input
            (inputs,) = seen.rows.values()
            self._source, self._curvature = seen.source, Curvature.of(inputs)
        group = store.group(name)
        for start, rows in chunks(store, name):
            found = gptq(rows, self._curvature, group, keep_zeros=self._keep_zeros)
            store.write(name, start, found)


class _Awq:
    """Scales the channels of each joint; rounds when all are scaled. Sees fp32 inputs."""

    def __init__(self, task: Task, store: Calibrated, folds: Folds) -> None:
        from mobilepack.models.compression.fold import joints

        weights = task.weights
        tied = weights.identity("head.weight") == weights.identity("embed.weight")
        self._joints = joints(task.exported, frozenset({"head.weight"} if tied else ()))
        self._weights = weights
        self._store = store
        self._folds = folds
        self._energy: dict[str, torch.Tensor] = {}

    def __call__(self, seen: LinearInput) -> None:
        from mobilepack.models.compression.awq import best_channel_scale

        (inputs,) = seen.rows.values()
        if self._store.takes(seen.weight):
            self._energy[seen.weight] = inputs.pow(2).mean(0)
        joint = self._joints.get(seen.source)
        if joint is None or seen.weight != joint.readers[0]:
            return
        if all(self._store.takes(name) for name in joint.readers):
            scale = best_channel_scale(inputs, lambda: self._read(joint), joint.shared)
            self._folds.add(joint, scale)

    def _read(self, joint: Joint) -> Iterator[tuple[torch.Tensor, int]]:
        for name in joint.readers:
            for _, rows in chunks(self._weights, name):
                yield rows, self._store.group(name)

    def round(self, store: Calibrated) -> None:
        """Round every weight, read with all its factors from `store`."""
        from mobilepack.models.compression.awq import rounded

        for name, energy in self._energy.items():
            columns = self._folds.columns.get(name)
            importance = energy if columns is None else energy / columns.pow(2)
            for start, rows in chunks(store, name):
                store.write(name, start, rounded(rows, importance, store.group(name)))
