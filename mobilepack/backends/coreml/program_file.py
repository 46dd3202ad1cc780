"""An ExecuTorch program whose methods are Core ML delegates, written around finished packages.

The form is that of executorch 1.5.1 (backends/apple/coreml/compiler/coreml_preprocess.py): a
package lies in a flat directory with `metadata.json`; where its functions serve several methods, it
is named data, and each method's delegate holds a JSON reference to it.
"""

from __future__ import annotations

import json
import math
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mobilepack.backends.coreml.package import Written
from mobilepack.backends.executorch import ScalarType, constant_method, container, et, head_of
from mobilepack.contract.manifest import FunctionCall, Method, TensorSpec
from mobilepack.mil.delegates import BACKEND, REFERENCE
from mobilepack.mil.flat_directory import flat_index
from mobilepack.mil.program import SPECIFICATIONS

NEW = "new_"  # see `contract.manifest.FunctionCall`
_PACKAGE = "model.mlpackage"
_ALIGNMENT = 4096  # of a segment: weights are mapped
_PLANNED = 64  # bytes: tensors are read with vector loads
_SCALARS = {"float16": (ScalarType.HALF, 2), "int32": (ScalarType.INT, 4)}


@dataclass(frozen=True, slots=True)
class _Segment:
    """Files and bytes that follow one another, from an offset on."""

    offset: int
    files: tuple[Path, ...]
    tail: bytes

    @property
    def size(self) -> int:
        return sum(file.stat().st_size for file in self.files) + len(self.tail)


@dataclass(slots=True)
class _Segments:
    placed: list[_Segment] = field(default_factory=list)

    @property
    def end(self) -> int:
        last = self.placed[-1] if self.placed else None
        return 0 if last is None else last.offset + last.size

    def add(self, files: Sequence[Path], tail: bytes) -> int:
        start = -(-self.end // _ALIGNMENT) * _ALIGNMENT
        self.placed.append(_Segment(start, tuple(files), tail))
        return len(self.placed) - 1


def write_program_file(
    path: Path,
    folder: Path,
    written: Written,
    opset: str,
    metadata: Mapping[str, int | bool | tuple[int, ...]],
) -> tuple[Method, ...]:
    """Write a `.pte` and return its methods; their calls name packages by their keys.

    Args:
        path: The program.
        folder: Holds the packages.
        written: What they are.
        opset: Of the packages.
        metadata: Constant methods.
    """
    segments, named, methods = _Segments(), dict[str, int](), written.methods
    places: dict[str, tuple[str, int]] = {}
    for name in dict.fromkeys(call.program for method in methods for call in method.calls):
        calls = {c.function: c for m in methods for c in m.calls if c.program == name}
        key, files, tail = _blob(folder / name, calls)
        places[name] = (key, segments.add(files, tail))
        if "main" not in calls:
            named[key] = places[name][1]
    plans = [_Plan(segments, places, written.hidden, opset).method(method) for method in methods]
    plans += [constant_method(name, value) for name, value in metadata.items()]
    program = et.Program(
        version=0,
        execution_plan=plans,
        constant_buffer=[],
        backend_delegate_data=[],
        segments=[et.DataSegment(offset=s.offset, size=s.size) for s in segments.placed],
        constant_segment=et.SubsegmentOffsets(segment_index=0, offsets=[]),
        mutable_data_segments=None,
        named_data=[et.NamedData(key=key, segment_index=index) for key, index in named.items()],
    )
    _write(path, head_of(program, segments.end), segments.placed)
    keys = {name: key for name, (key, _) in places.items()}
    return tuple(
        method.model_copy(
            update={
                "calls": tuple(
                    call.model_copy(update={"program": keys[call.program]}) for call in method.calls
                )
            }
        )
        for method in methods
    )


def _blob(package: Path, calls: Mapping[str, FunctionCall]) -> tuple[str, list[Path], bytes]:
    """Return a package's key, and the files and bytes of its flat directory.

    The weights come first: the segment's alignment is theirs.
    """
    files = sorted(package.rglob("*"), key=lambda file: (file.suffix != ".bin", str(file)))
    files = [file for file in files if file.is_file()]
    sizes = {
        f"{_PACKAGE}/{file.relative_to(package).as_posix()}": file.stat().st_size for file in files
    }
    identifier = f"executorch_{uuid.uuid5(uuid.NAMESPACE_URL, package.name)}"
    orders = {
        name: {"inputNames": list(call.inputs), "outputNames": list(call.outputs)}
        for name, call in calls.items()
    }
    document = orders.get("main", {"methods": orders})
    text = json.dumps({"identifier": identifier, **document}).encode()
    sizes["metadata.json"] = len(text)
    return f"coreml_{identifier}", files, text + flat_index("lowered_module", sizes)


@dataclass(slots=True)
class _Plan:
    """One method under construction."""

    segments: _Segments
    places: Mapping[str, tuple[str, int]]
    hidden: Mapping[tuple[str, int], TensorSpec]
    opset: str
    values: list[et.EValue] = field(default_factory=list)
    used: int = 0

    def method(self, method: Method) -> et.ExecutionPlan:
        """Return the finished method: its inputs, then call after call."""
        known = {spec.name: self._tensor(spec, planned=False) for spec in method.inputs}
        inputs, results = list(known.values()), {spec.name: spec for spec in method.outputs}
        delegates, steps = [], []
        for index, call in enumerate(method.calls):
            delegates.append(self._delegate(call))
            given = [known[name] for name in call.inputs]
            made = []
            for name in call.outputs:
                plain = name.removeprefix(NEW)
                spec = results.get(plain) or self.hidden[method.name, index]
                made.append(self._tensor(spec, planned=True))
                known[plain] = made[-1]
            arguments = et.DelegateCall(delegate_index=index, args=[*given, *made])
            steps.append(et.Instruction(instr_args=arguments))
        outputs = [known[spec.name] for spec in method.outputs]
        return et.ExecutionPlan(
            name=method.name,
            container_meta_type=container(len(inputs), len(outputs)),
            values=self.values,
            inputs=inputs,
            outputs=outputs,
            chains=[et.Chain(inputs=[], outputs=[], instructions=steps, stacktrace=None)],
            operators=[],
            delegates=delegates,
            non_const_buffer_sizes=[0, self.used],
        )

    def _delegate(self, call: FunctionCall) -> et.BackendDelegate:
        key, segment = self.places[call.program]
        if call.function != "main":
            reference = {"version": 1, "key": key, "functionName": call.function}
            segment = self.segments.add((), REFERENCE + json.dumps(reference).encode())
        where = et.DataLocation.SEGMENT
        processed = et.BackendDelegateDataReference(location=where, index=segment)
        return et.BackendDelegate(id=BACKEND, processed=processed, compile_specs=self._specs())

    def _specs(self) -> list[et.CompileSpec]:
        """Return what the delegate's runtime is told (`generate_compile_specs`)."""
        texts = {
            "compute_units": "cpu_and_ne",
            "min_deployment_target": str(SPECIFICATIONS[self.opset]),
            "model_compute_precision": "float16",
            "model_type": "model",
        }
        return [et.CompileSpec(key=key, value=text.encode()) for key, text in texts.items()]

    def _tensor(self, spec: TensorSpec, *, planned: bool) -> int:
        scalar, width = _SCALARS[spec.dtype]
        place = None
        if planned:
            at = self.used
            place = et.AllocationDetails(
                memory_id=1, memory_offset_low=at & 0xFFFFFFFF, memory_offset_high=at >> 32
            )
            self.used += -(-math.prod(spec.shape) * width // _PLANNED) * _PLANNED
        tensor = et.Tensor(
            scalar_type=scalar,
            storage_offset=0,
            sizes=list(spec.shape),
            dim_order=list(range(len(spec.shape))),
            requires_grad=False,
            layout=0,
            data_buffer_idx=0,
            allocation_info=place,
            shape_dynamism=et.TensorShapeDynamism.STATIC,
        )
        self.values.append(et.EValue(val=tensor))
        return len(self.values) - 1


def _write(path: Path, head: bytes, segments: Sequence[_Segment]) -> None:
    with path.open("wb") as out:
        out.write(head)
        for segment in segments:
            out.seek(len(head) + segment.offset)
            for file in segment.files:
                with file.open("rb") as source:
                    shutil.copyfileobj(source, out, 1 << 20)
            out.write(segment.tail)
