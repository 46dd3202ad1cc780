"""Which values of a package's program stand for which values of a fresh lowering of its model.

The two are the same unless the package was lowered by another version, or wrongly. Instructions and
XNNPACK operators are aligned as texts are by `diff`; what does not align is told as a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from mobilepack.backends.xnnpack.read import ReadProgram
from mobilepack.backends.xnnpack.vendor import et, xnn

_INVALID = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where the program is not built like the fresh lowering.

    Attributes:
        instruction: Of the fresh lowering.
        expected: What stands there, empty for nothing.
        found: What the package has instead, empty for nothing.
    """

    instruction: int
    expected: str
    found: str

    def __str__(self) -> str:
        if not self.found:
            return f"lacks {self.expected}"
        return f"has {self.found}" + (f" for {self.expected}" if self.expected else " in addition")


@dataclass(slots=True)
class Inside:
    """An aligned pair of XNNPACK graphs.

    Attributes:
        values: Value of the package's graph by that of the fresh one.
    """

    found: xnn.XNNGraph
    values: dict[int, int]
    differences: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Alignment:
    """An aligned pair of programs.

    Attributes:
        instructions: Instruction of the package's program by that of the fresh one.
        values: Value of the package's program by that of the fresh one.
    """

    expected: ReadProgram
    found: ReadProgram
    instructions: dict[int, int] = field(default_factory=dict)
    values: dict[int, int] = field(default_factory=dict)
    _inside: dict[int, Inside] = field(default_factory=dict)
    _outer: list[Difference] = field(default_factory=list)

    def __post_init__(self) -> None:
        first, second = self.expected.instructions, self.found.instructions
        mine, theirs = _signatures(self.expected), _signatures(self.found)
        for tag, a, b, c, d in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
            if tag != "equal":
                self._outer += _differences(a, mine[a:b], theirs[c:d])
                continue
            for one, other in zip(range(a, b), range(c, d), strict=True):
                self.instructions[one] = other
                for value, partner in self._pairs(one, first[one], second[other]):
                    self.values.setdefault(value, partner)

    def _pairs(self, at: int, mine: object, theirs: object) -> list[tuple[int, int]]:
        """Return the values that two instructions are given in the same role."""
        first, second = _args(mine), _args(theirs)
        if len(first) == len(second):
            return list(zip(first, second, strict=True))
        inside = self.inside(at)
        if inside is None:
            return []
        graph = self.expected.graph(mine.delegate_index)  # type: ignore[attr-defined]
        sides = (_externals(graph), _externals(inside.found))
        found = ((sides[0].get(a), sides[1].get(b)) for a, b in inside.values.items())
        return [(first[a], second[b]) for a, b in found if a is not None and b is not None]

    def inside(self, instruction: int) -> Inside | None:
        """Return the graphs of a delegate call of the fresh lowering, None if it has no partner."""
        if instruction not in self.instructions:
            return None
        if instruction not in self._inside:
            calls = (
                self.expected.instructions[instruction],
                self.found.instructions[self.instructions[instruction]],
            )
            graphs = [
                program.graph(call.delegate_index)  # type: ignore[attr-defined]
                for program, call in zip((self.expected, self.found), calls, strict=True)
            ]
            self._inside[instruction] = _align(*graphs)
        return self._inside[instruction]

    def differences(self) -> tuple[Difference, ...]:
        """Return every structural difference, those inside delegates too."""
        found = list(self._outer)
        told: set[int] = set()
        for at, call in enumerate(self.expected.instructions):
            if not isinstance(call, et.DelegateCall) or call.delegate_index in told:
                continue
            told.add(call.delegate_index)
            if at in self.instructions and not self._same_blob(at):
                inside = self.inside(at)
                pairs = inside.differences if inside else ()
                found += [Difference(at, mine, theirs) for mine, theirs in pairs]
        return tuple(sorted(found, key=lambda one: one.instruction))

    def _same_blob(self, at: int) -> bool:
        blobs = []
        pairs = ((self.expected, at), (self.found, self.instructions[at]))
        for program, index in pairs:
            call = program.instructions[index]
            delegate = program.plan.delegates[call.delegate_index]  # type: ignore[attr-defined]
            blobs.append(program.segment(delegate.processed.index))
        return blobs[0] == blobs[1]


def _signatures(program: ReadProgram) -> list[str]:
    names = []
    for call in program.instructions:
        if isinstance(call, et.KernelCall):
            operator = program.plan.operators[call.op_index]
            names.append(f"{operator.name}.{operator.overload} of {len(call.args)}")
        elif isinstance(call, et.DelegateCall):
            names.append(f"delegate {_first_key(program.graph(call.delegate_index))}".strip())
        else:
            names.append(type(call).__name__)
    return names


def _first_key(graph: xnn.XNNGraph) -> str:
    """Return the name of a graph's first weight, which says whose it is; empty without any."""
    return next((one.named_key for one in graph.constant_data if one.named_key), "")


def _externals(graph: xnn.XNNGraph) -> dict[int, int]:
    """Return the external number of each value that has one, by its id."""
    found = {}
    for value in graph.xvalues:
        union = value.xvalue_union
        tensor = union if isinstance(union, xnn.XNNTensorValue) else union.tensor_value
        if tensor.external_id != _INVALID:
            found[tensor.id_out] = tensor.external_id
    return found


def _args(call: object) -> Sequence[int]:
    args: Sequence[int] = getattr(call, "args", ())
    return args


def _differences(at: int, mine: Sequence[str], theirs: Sequence[str]) -> list[Difference]:
    count = max(len(mine), len(theirs))
    padded = [[*names, *[""] * (count - len(names))] for names in (mine, theirs)]
    return [
        Difference(at + min(index, max(len(mine) - 1, 0)), one, other)
        for index, (one, other) in enumerate(zip(*padded, strict=True))
    ]


def _align(first: xnn.XNNGraph, second: xnn.XNNGraph) -> Inside:
    kinds = [[type(n.xnode_union).__name__ for n in graph.xnodes] for graph in (first, second)]
    mine, theirs = kinds
    values: dict[int, int] = {}
    differences: list[tuple[str, str]] = []
    for tag, a, b, c, d in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        if tag != "equal":
            told = _differences(a, mine[a:b], theirs[c:d])
            differences += [(one.expected, one.found) for one in told]
            continue
        for one, other in zip(first.xnodes[a:b], second.xnodes[c:d], strict=True):
            differences += _settings(one, other)
            for name, value in vars(one.xnode_union).items():
                partner = getattr(other.xnode_union, name)
                if name.endswith("_id") and _INVALID not in (value, partner):
                    values.setdefault(value, partner)
    return Inside(second, values, tuple(differences))


def _settings(one: xnn.XNode, other: xnn.XNode) -> list[tuple[str, str]]:
    """Return what two operators of one kind do differently: shapes, limits, flags."""
    pairs = [
        (f"{name} {value}", f"{name} {getattr(other.xnode_union, name)}")
        for name, value in vars(one.xnode_union).items()
        if not name.endswith("_id")
    ]
    pairs.append((str(one.output_min_max), str(other.output_min_max)))
    kind = type(one.xnode_union).__name__
    return [(f"{kind} with {a}", f"{kind} with {b}") for a, b in pairs if a != b]
