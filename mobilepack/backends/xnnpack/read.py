"""A program read back into ExecuTorch's own classes: the file of a package, or a fresh lowering."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mobilepack.backends.executorch import et, serialise
from mobilepack.backends.xnnpack.layout import Bytes
from mobilepack.backends.xnnpack.lowered import Lowered
from mobilepack.backends.xnnpack.vendor import deserialize_xnnpack_graph, xnn
from mobilepack.errors import UsageError

_HEAD_BYTES = 64  # holds the extended header, which says how long the flatbuffer is
_XNN_HEADER = struct.Struct("<4sHII")  # magic, length, offset and size of the flatbuffer
_XNN_HEADER_AT = 4


@dataclass(frozen=True, slots=True)
class ReadProgram:
    """A program's flatbuffer, and a way to read its segments.

    Attributes:
        program: All of it but the segments.
        base: Where the first segment begins in the file.
        segment: Reads a segment by its index.
    """

    program: et.Program
    base: int
    segment: Callable[[int], bytes]
    _graphs: dict[int, xnn.XNNGraph] = field(default_factory=dict)

    @property
    def plan(self) -> et.ExecutionPlan:
        """The method `forward`."""
        return next(plan for plan in self.program.execution_plan if plan.name == "forward")

    @property
    def instructions(self) -> list[object]:
        """The arguments of its instructions."""
        return [one.instr_args for one in self.plan.chains[0].instructions]

    def graph(self, delegate: int) -> xnn.XNNGraph:
        """Return the XNNPACK graph of a delegate; it is read once, so change a copy."""
        if delegate not in self._graphs:
            self._graphs[delegate] = self._read(delegate)
        return self._graphs[delegate]

    def _read(self, delegate: int) -> xnn.XNNGraph:
        blob = self.segment(self.plan.delegates[delegate].processed.index)
        _, _, offset, size = _XNN_HEADER.unpack_from(blob, _XNN_HEADER_AT)
        return deserialize_xnnpack_graph(blob[offset : offset + size])


def read_file(path: Path) -> ReadProgram:
    """Read a package's program; only its flatbuffer is in memory.

    Raises:
        UsageError: It is no program with segments, as mobilepack writes them.
    """
    with path.open("rb") as file:
        header = serialise._get_extended_header(file.read(_HEAD_BYTES))
        if header is None:
            raise UsageError(
                "not-a-program",
                f"cannot read {path}",
                why="it has no extended header of an ExecuTorch program",
                next="build the package again",
            )
        file.seek(0)
        program = serialise._flatbuffer_to_program(file.read(header.program_size))
    base = header.segment_base_offset

    def segment(index: int) -> bytes:
        place = program.segments[index]
        with path.open("rb") as file:
            file.seek(base + place.offset)
            return file.read(place.size)

    return ReadProgram(program, base, segment)


def read_lowered(lowered: Lowered) -> ReadProgram:
    """Read a fresh lowering, whose weights are not written; segments of weights read as nothing."""
    program = serialise._flatbuffer_to_program(lowered.head)
    contents = {region.offset: region.content for region in lowered.layout.regions}

    def segment(index: int) -> bytes:
        content = contents.get(program.segments[index].offset)
        return content.data if isinstance(content, Bytes) else b""

    return ReadProgram(program, len(lowered.head), segment)
