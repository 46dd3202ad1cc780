"""An ExecuTorch program (`.pte`): its methods, values, instructions and delegates, read in place.

Schema: executorch 1.5.1, schema/program.fbs (identifier ET12); the numbers below are the places of
its fields. Extended header: exir/_serialize/_program.py, `_ExtendedHeader`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from mobilepack.errors import MissingError, UsageError
from mobilepack.mil.files import map_file
from mobilepack.mil.flatbuffer import BrokenBuffer, Table, broken, root

IDENTIFIER = b"ET12"
HEADER_MAGIC = b"eh00"
_HEADER = struct.Struct("<4sIQQ")

Value = int | float | bool | str | tuple[int, ...] | tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class TensorValue:
    """A tensor of a method.

    Attributes:
        scalar: ScalarType of scalar_type.fbs.
        data: Its initial elements, None where it has none.
        constant: Whether it never changes.
        buffer: Name of the module's buffer that it is, "" where it is none.
    """

    scalar: int
    sizes: tuple[int, ...]
    data: memoryview | None
    constant: bool
    buffer: str


@dataclass(frozen=True, slots=True)
class ListValue:
    """A list of other values, by their places; -1 for None."""

    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KernelCall:
    """A kernel outside the delegates: `aten::copy_`, its overload, arguments and results."""

    operator: str
    overload: str
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DelegateCall:
    """A call of a delegate: inputs, then outputs."""

    delegate: int
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Move:
    """Copy one value to another place."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class JumpIfFalse:
    """Go to an instruction unless a value is true."""

    condition: int
    target: int


Instruction = KernelCall | DelegateCall | Move | JumpIfFalse | None


@dataclass(frozen=True, slots=True)
class Delegate:
    """A part that another runtime executes: its id (`CoreMLBackend`) and its blob."""

    id: str
    blob: memoryview


@dataclass(frozen=True, slots=True)
class Method:
    """An entry point of the program."""

    name: str
    values: tuple[Value | TensorValue | ListValue, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    instructions: tuple[Instruction, ...]
    delegates: tuple[Delegate, ...]


@dataclass(frozen=True, slots=True)
class PteProgram:
    """A program: methods, and blobs that delegates find by name."""

    name: str
    methods: dict[str, Method]
    named_data: dict[str, memoryview]


def open_pte(path: Path) -> PteProgram:
    """Read a `.pte`; its bytes stay mapped.

    Raises:
        MissingError: There is no such file.
        UsageError: It is no ExecuTorch program, or it is damaged.
    """
    try:
        data = map_file(path)
    except OSError as err:
        raise MissingError(
            "no-such-program",
            f"cannot read {path}",
            why=err.strerror or str(err),
            next="name a .pte file",
        ) from err
    return parse_pte(str(path), data)


def parse_pte(name: str, data: memoryview) -> PteProgram:
    """Read a program from its bytes.

    Raises:
        UsageError: It is no ExecuTorch program, or it is damaged.
    """
    if len(data) < 8 or bytes(data[4:8]) != IDENTIFIER:
        raise UsageError(
            "not-a-program",
            f"cannot read {name}",
            why=f"it does not have the identifier {IDENTIFIER.decode()} of an ExecuTorch program",
            next="name a .pte file that executorch 1.x wrote",
        )
    try:
        return _Reader(name, data).program()
    except BrokenBuffer as err:
        raise broken(name, err) from err


class _Reader:
    def __init__(self, name: str, data: memoryview) -> None:
        self.name, self.data = name, data
        self.base = 0
        if len(data) >= 8 + _HEADER.size and bytes(data[8:12]) == HEADER_MAGIC:
            self.base = _HEADER.unpack_from(data, 8)[3]
        self.table = root(data)
        self.segments = [(t.number(0, "Q"), t.number(1, "Q")) for t in self.table.tables(4)]

    def program(self) -> PteProgram:
        named = {item.text(0): self.segment(item.number(1, "I")) for item in self.table.tables(7)}
        methods = [self.method(plan) for plan in self.table.tables(1)]
        return PteProgram(self.name, {method.name: method for method in methods}, named)

    def segment(self, index: int) -> memoryview:
        if index >= len(self.segments):
            raise BrokenBuffer(f"segment {index} of {len(self.segments)}")
        offset, size = self.segments[index]
        start = self.base + offset
        if start + size > len(self.data):
            raise BrokenBuffer(f"a segment ends at {start + size}, the file at {len(self.data)}")
        return self.data[start : start + size]

    def method(self, plan: Table) -> Method:
        operators = [(item.text(0), item.text(1)) for item in plan.tables(6)]
        chains = plan.tables(5)
        return Method(
            plan.text(0),
            tuple(self.value(item) for item in plan.tables(2)),
            plan.numbers(3, "i"),
            plan.numbers(4, "i"),
            tuple(instruction(i, operators) for chain in chains for i in chain.tables(2)),
            tuple(self.delegate(item) for item in plan.tables(7)),
        )

    def delegate(self, item: Table) -> Delegate:
        where = item.table(1)
        if where is None:
            raise BrokenBuffer("a delegate without data")
        index = where.number(1, "I")
        if where.number(0, "b"):
            return Delegate(item.text(0), self.segment(index))
        inline = self.table.tables(3)
        if index >= len(inline):
            raise BrokenBuffer(f"delegate data {index} of {len(inline)}")
        return Delegate(item.text(0), inline[index].raw(0))

    def value(self, item: Table) -> Value | TensorValue | ListValue:
        kind, inner = item.number(0, "B"), item.table(1)
        if inner is None or kind <= 1:
            return None
        if kind == 5:
            return self.tensor(inner)
        return plain_value(kind, inner)

    def tensor(self, item: Table) -> TensorValue:
        index, sizes = item.number(5, "I"), item.numbers(2, "i")
        planned, extra = item.table(6), item.table(9)
        data = self.tensor_data(index, planned is not None, extra) if index else None
        return TensorValue(
            item.number(0, "b"),
            sizes,
            data,
            constant=bool(index) and planned is None,
            buffer=extra.text(1) if extra is not None else "",
        )

    def tensor_data(self, index: int, mutable: bool, extra: Table | None) -> memoryview:
        """Return a tensor's bytes to the end of its segment; its type says how many are its own."""
        if mutable:
            every = self.table.tables(6)
            which = extra.number(0, "Q") if extra is not None else 0
            if which >= len(every):
                raise BrokenBuffer(f"mutable segment {which} of {len(every)}")
            place = every[which]
        else:
            inline = self.table.tables(2)
            if index < len(inline):
                return inline[index].raw(0)
            found = self.table.table(5)
            if found is None:
                raise BrokenBuffer(f"constant {index} without a segment")
            place = found
        offsets = place.numbers(1, "Q")
        if index >= len(offsets):
            raise BrokenBuffer(f"constant {index} of {len(offsets)}")
        return self.segment(place.number(0, "I"))[offsets[index] :]


def plain_value(kind: int, item: Table) -> Value | ListValue:
    """Return a value that is no tensor, by its place in the union KernelTypes."""
    if kind in (2, 3):
        return bool(item.number(0, "b")) if kind == 3 else item.number(0, "q")
    if kind == 4:
        return item.real(0)
    if kind == 6:
        return item.text(0)
    if kind == 8:
        bits = item.numbers(0, "Q")
        return struct.unpack(f"<{len(bits)}d", struct.pack(f"<{len(bits)}Q", *bits))
    if kind == 9:
        return tuple(bool(item) for item in item.numbers(0, "b"))
    return ListValue(item.numbers(0, "q" if kind == 7 else "i"))


def instruction(item: Table, operators: list[tuple[str, str]]) -> Instruction:
    """Return an instruction; None for one that only frees memory."""
    kind, inner = item.number(0, "B"), item.table(1)
    if inner is None:
        raise BrokenBuffer("an instruction without arguments")
    if kind == 1:
        index = inner.number(0, "i")
        if not 0 <= index < len(operators):
            raise BrokenBuffer(f"operator {index} of {len(operators)}")
        return KernelCall(*operators[index], inner.numbers(1, "i"))
    if kind == 2:
        return DelegateCall(inner.number(0, "i"), inner.numbers(1, "i"))
    if kind == 3:
        return Move(inner.number(0, "i"), inner.number(1, "i"))
    if kind == 4:
        return JumpIfFalse(inner.number(0, "i"), inner.number(1, "i"))
    return None
