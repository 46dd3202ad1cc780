"""Say what the suites need to know of a peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.environments import Environment
from benchmarks.shapes import Shape


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """Ask a peer to turn a checkpoint into what it runs.

    Attributes:
        output: A folder of the peer's own, empty at the start.
        context: Longest sequence the result must take, in tokens.
    """

    shape: Shape
    checkpoint: Path
    output: Path
    context: int
    threads: int


@dataclass(frozen=True, slots=True)
class BuildStep:
    """Hold one command of a build.

    Attributes:
        counted: False for steps that belong to the benchmark and not to the peer,
            such as translating our checkpoint into a format only that peer reads.
    """

    label: str
    command: tuple[str, ...]
    counted: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """Describe a tool by what builds with it and what runs what it built.

    Attributes:
        environment: None for the environment that mobilepack itself runs in.
        versions_of: Packages whose versions go into the results.
        child: Module that measures the artefact.
        child_variables: Environment variables of that child.
        plan: Lists the commands of a build; its first argument is the interpreter.
        program: Says which file or folder the engine loads.
        weighed: Says which files count as its size.
        flash_attention_choices: Settings measured; the best of them counts, metric by metric.
        warm_up: Arguments for the interpreter that let the peer make, before the first round, what
            it keeps between loads; the program's path is added.
        keep: Whether an earlier build may be measured again; not for what changes daily.
        skip: Says why a shape cannot be built, or returns an empty string.
    """

    name: str
    environment: Environment | None
    versions_of: tuple[str, ...]
    child: str
    plan: Callable[[Path, BuildRequest], tuple[BuildStep, ...]]
    program: Callable[[Path], Path]
    weighed: Callable[[Path], tuple[Path, ...]]
    child_variables: Mapping[str, str] = field(default_factory=dict)
    flash_attention_choices: tuple[bool, ...] = (True,)
    warm_up: tuple[str, ...] = ()
    keep: bool = True
    skip: Callable[[Shape], str] = field(default=lambda shape: "")
