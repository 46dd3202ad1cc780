"""The rung between eager PyTorch and the lowered program: what torch.export made, run by torch.

It is made anew from the checkpoint that the manifest names. Of a package for an NPU it is the
static form in float32, with the numbers that the package's weights stand for where those are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilepack.contract.manifest import BuildPlan, Manifest, StaticForm
from mobilepack.contract.package import MANIFEST
from mobilepack.contract.reference import Variant
from mobilepack.errors import MissingError, MobilepackError
from mobilepack.models.weights import LoadedModel, open_model
from mobilepack.pipeline.coreml_functions import decode_functions
from mobilepack.pipeline.export import export_decoder
from mobilepack.pipeline.reference import quantisation_of

if TYPE_CHECKING:
    import torch

    from mobilepack.models.exported_session import ExportedSession
    from mobilepack.models.static_session import StaticSession
    from mobilepack.models.streaming import Parameters

_BYTES = 4  # of a weight in float32
_NEXT = "put the checkpoint back where it was, or build the package again from where it is now"


@dataclass(frozen=True, slots=True)
class Exported:
    """A decoder's exported graph, ready to run.

    Attributes:
        step: Takes tokens [S] and a position, returns logits [V].
        recurrent: Whether a rewind must be fed again.
        equals: The eager variant that it must equal.
    """

    step: ExportedSession | StaticSession
    recurrent: bool
    equals: Variant


@contextmanager
def source_model(plan: BuildPlan) -> Iterator[LoadedModel]:
    """Open the checkpoint that a package was built from.

    Raises:
        MissingError: It is gone or another one, or the package's weights were changed before they
            were lowered.
    """
    if plan.compression is not None:
        raise _cannot(
            "its weights were compressed before they were lowered, and only the build knows how",
            "verify a package of the same model without --compress",
        )
    source = plan.model
    try:
        model = open_model(source.source, revision=source.revision, offline=True)
    except MobilepackError as err:
        raise _cannot(f"its checkpoint {source.source} is gone: {err.what}", _NEXT) from err
    try:
        if model.checkpoint.fingerprint != source.fingerprint:
            raise _cannot(f"{source.source} is not the checkpoint that it was built from", _NEXT)
        yield model
    finally:
        model.close()


def exported_bytes(manifest: Manifest) -> int:
    """Return the memory that the exported graph's weights take."""
    return _BYTES * manifest.parameters


def open_exported(model: LoadedModel, manifest: Manifest, package: Path) -> Exported:
    """Export a package's model again and load its weights as they are needed.

    Args:
        model: From `source_model`.
        manifest: Of the package.
        package: Its root.
    """
    plan, form = manifest.plan, manifest.static
    if form is None:
        return _dynamic(model, plan)
    parameters, compressed = packaged_parameters(model, plan, package)
    equals: Variant = "quantised" if compressed else "fp32"
    plain = form.model_copy(update={"keys": "channels_first", "states": False})
    return Exported(_static(model, parameters, plan, plain), recurrent=False, equals=equals)


def packaged_parameters(
    model: LoadedModel, plan: BuildPlan, package: Path
) -> tuple[Parameters, bool]:
    """Return the numbers that a package's weights stand for, where it tells, and whether it did."""
    if plan.backend != "coreml":
        return model.weights, False
    from mobilepack.backends.coreml.weights import PackagedParameters

    methods = Manifest.read(package / MANIFEST).methods
    packaged = PackagedParameters(model.weights, decode_functions(package, plan, methods))
    return packaged, bool(packaged.compressed)


def _dynamic(model: LoadedModel, plan: BuildPlan) -> Exported:
    from mobilepack.models.exported_session import ExportedSession
    from mobilepack.models.streaming import FP32
    from mobilepack.models.tables import make_tables

    exported = export_decoder(model.spec, plan.max_seq_len, plan.prefill_chunk)
    tables = make_tables(model.spec, plan.max_seq_len)
    quantisation = quantisation_of(plan.recipe)
    step = ExportedSession(exported, model.weights, tables, quantisation)
    equals: Variant = "fp32" if quantisation == FP32 else "quantised"
    return Exported(step, model.spec.is_recurrent, equals)


def _static(
    model: LoadedModel, parameters: Parameters, plan: BuildPlan, form: StaticForm
) -> StaticSession:
    import torch

    from mobilepack.models.spec import parameter_shapes
    from mobilepack.models.static import (
        METHODS,
        StaticShape,
        input_names,
        static_decoder,
    )
    from mobilepack.models.static_session import StaticSession, static_methods

    weights = {name: parameters.tensor(name) for name in parameter_shapes(model.spec)}
    graphs: dict[str, Any] = {}
    inputs: dict[str, list[tuple[tuple[int, ...], str]]] = {}
    outputs: dict[str, list[tuple[tuple[int, ...], str]]] = {}
    for name, tokens in zip(METHODS, (form.prefill_tokens, 1), strict=True):
        shape = StaticShape(tokens, plan.max_seq_len, form.past)
        module = static_decoder(model.spec, shape, weights)
        example = module.example(form.mask_value)
        graphs[name] = torch.export.export(module, example, strict=False).module()
        with torch.no_grad():
            outputs[name] = _kinds(graphs[name](*example))
        inputs[name] = _kinds(example)

    def run(name: str, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        with torch.no_grad():
            made = graphs[name](*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))
        return [tensor.numpy() for tensor in made]

    methods = static_methods(input_names(model.spec), inputs, outputs)
    own = StaticForm(  # the module's, whatever the package's own program looks like
        past=form.past,
        prefill_tokens=form.prefill_tokens,
        mask_value=form.mask_value,
        windows=form.windows,
    )
    return StaticSession(own, methods, run)


def _kinds(tensors: Sequence[torch.Tensor]) -> list[tuple[tuple[int, ...], str]]:
    return [(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in tensors]


def _cannot(why: str, remedy: str) -> MissingError:
    return MissingError(
        "no-exported-graph",
        "cannot run the exported graph of this package",
        why=why,
        next=remedy,
    )
