"""`mobilepack mil`: run, show and compare Core ML programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mobilepack.cli import options, render
from mobilepack.errors import ExitCode

if TYPE_CHECKING:
    from mobilepack.commands.mil import DiffView, Invocation, RunView
    from mobilepack.commands.mil_show import FileView, FunctionView

F = TypeVar("F", bound=Callable[..., Any])
MOST_ROWS = 20  # operators in the summary of a function


@click.group(
    epilog="""\b
Example
  mobilepack mil show Model.mlpackage
  mobilepack mil run Model.mlpackage --inputs inputs.npz --outputs outputs.npz
  mobilepack mil diff Compressed.mlpackage Model.mlpackage
"""
)
def command() -> None:
    """Run, show and compare Core ML programs on this machine.

    X is an .mlpackage with an ML Program, or an ExecuTorch .pte with Core ML delegates. The
    interpreter needs no Mac: it computes what the program says, each value rounded to its declared
    type; how Apple's hardware accumulates is not modelled (docs/mil.md).
    """


def program_argument(name: str = "program", *, required: bool = True) -> Callable[[F], F]:
    """Return what adds the path of a program."""
    return click.argument(
        name,
        required=required,
        metavar="X" if required else "[REFERENCE]",
        type=click.Path(path_type=Path),
    )


def call_options(function: F) -> F:
    """Add the options that say how a program is called."""
    for option in reversed(
        (
            click.option(
                "--function",
                metavar="NAME",
                help="Function of an .mlpackage, method of a .pte. Default: the program's.",
            ),
            click.option(
                "--inputs",
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help="An .npz with one array per input (of a .pte: input_0, input_1, ...)."
                " Default: random ones.",
            ),
            click.option(
                "--seed",
                type=int,
                default=0,
                show_default=True,
                help="Of random inputs: normal floats, integers 0 or 1.",
            ),
            click.option(
                "--calls",
                type=click.IntRange(min=1),
                default=1,
                show_default=True,
                metavar="N",
                help="Calls with the same inputs, states kept in between.",
            ),
            click.option(
                "--no-rounding",
                is_flag=True,
                help="Carry fp16 values in fp32, to tell rounding from faults of conversion.",
            ),
            click.option(
                "--weight-memory",
                "weight_memory_mb",
                type=click.IntRange(min=0),
                default=4096,
                show_default=True,
                metavar="MB",
                help="Memory for decompressed weights; beyond it they are made for each use.",
            ),
        )
    ):
        function = option(function)
    return function


def invocation(values: dict[str, Any]) -> Invocation:
    """Return the call that the options describe."""
    from mobilepack.commands.mil import Invocation

    return Invocation(
        function=values["function"],
        inputs=values["inputs"],
        seed=values["seed"],
        calls=values["calls"],
        rounding="none" if values["no_rounding"] else "declared",
        budget_bytes=values["weight_memory_mb"] * 1_000_000,
    )


@command.command(
    "show",
    epilog="""\b
Example
  mobilepack mil show Model.mlpackage
  mobilepack mil show model.pte --operations
""",
)
@program_argument()
@click.option("--operations", is_flag=True, help="List every operation with its types.")
@options.json_option
def show_command(program: Path, operations: bool, as_json: bool) -> None:
    """Show a program's functions, states and operators, and which the interpreter lacks."""
    from mobilepack.commands.mil_show import show

    view = show(program, listing=operations)
    if as_json:
        render.document("mil-show", render.plain(view))
    else:
        print_file(view)


@command.command(
    "run",
    epilog="""\b
Example
  mobilepack mil run Model.mlpackage --seed 1 --trace
  mobilepack mil run Model.mlpackage --inputs inputs.npz --outputs outputs.npz
""",
)
@program_argument()
@call_options
@click.option(
    "--outputs",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the outputs of the last call to this .npz (fp16 ones as float32).",
)
@click.option("--trace", is_flag=True, help="Summarise every intermediate value.")
@options.json_option
def run_command(
    program: Path, outputs: Path | None, trace: bool, as_json: bool, **values: Any
) -> int:
    """Run a program and summarise its outputs; its states begin at zero."""
    from mobilepack.commands.mil import run

    view = run(program, invocation(values), outputs=outputs, trace=trace)
    if as_json:
        render.document("mil-run", render.plain(view))
    else:
        print_run(view)
    return ExitCode.OK


@command.command(
    "diff",
    epilog="""\b
Example
  mobilepack mil diff Compressed.mlpackage Model.mlpackage --tolerance 0.1
  mobilepack mil diff Model.mlpackage
""",
)
@program_argument()
@program_argument("reference", required=False)
@call_options
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    metavar="SHARE",
    help="Largest difference that is still the same: rms of the difference over rms of REFERENCE.",
)
@options.json_option
def diff_command(
    program: Path, reference: Path | None, tolerance: float, as_json: bool, **values: Any
) -> int:
    """Find the first value in which two programs differ, with the same inputs.

    Values are compared by name. Without REFERENCE the program is compared with itself, rounding
    off: that is what fp16 costs. Exits with 3 when a value differs beyond the tolerance.
    """
    from mobilepack.commands.mil import diff

    view = diff(program, reference, invocation(values), tolerance=tolerance)
    if as_json:
        render.document("mil-diff", render.plain(view))
    else:
        print_diff(view)
    return ExitCode.OK if view.passed else ExitCode.CHECK_FAILED


def print_file(view: FileView) -> None:
    """Print what a file holds."""
    for method in view.methods:
        kernels = ", ".join(method.kernels) or "nothing"
        render.line(f"method {method.name}: {', '.join(method.delegates)}; outside them {kernels}")
    for program in view.programs:
        render.line(f"program     {program.key or view.path}")
        render.line(f"weights     {render.size(program.weight_bytes)}")
        for function in program.functions:
            render.line()
            mark = " (default)" if function.name == program.default else ""
            render.line(f"function    {function.name}{mark}, {function.opset} ({function.system})")
            print_function(function)


def print_function(function: FunctionView) -> None:
    """Print a function's interface and operators."""
    for word, ports in (
        ("input", function.inputs),
        ("state", function.states),
        ("output", function.outputs),
    ):
        for port in ports:
            render.line(f"{word:<11} {port.name}: {port.type}")
    used = [f"{name} ×{count}" for name, count in function.operators.items()]
    more = f" and {len(used) - MOST_ROWS} more" if len(used) > MOST_ROWS else ""
    render.line(f"operators   {', '.join(used[:MOST_ROWS])}{more}")
    if function.unknown:
        render.line(f"unknown     {', '.join(function.unknown)}: it cannot be run here")
    for line in function.listing:
        render.line(f"  {line}")


def print_run(view: RunView) -> None:
    """Print intermediate values and outputs."""
    header = ("call", "operator", "value", "shape", "least", "largest", "rms", "beyond fp16")
    if view.trace:
        render.table(
            header,
            [
                (
                    row.call,
                    row.operator,
                    row.name,
                    _shape(row.shape),
                    row.least,
                    row.largest,
                    row.rms,
                    row.beyond_fp16,
                )
                for row in view.trace
            ],
        )
        render.line()
    render.table(
        ("output", *header[3:]),
        [
            (row.name, _shape(row.shape), row.least, row.largest, row.rms, row.beyond_fp16)
            for row in view.outputs
        ],
    )
    if view.written is not None:
        render.message(f"outputs: {view.written}")


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def print_diff(view: DiffView) -> None:
    """Print where two runs part."""
    found = view.intermediate
    render.line(
        f"compared    {found.compared} values over {view.calls} calls;"
        f" {found.unmatched} are in one program only"
    )
    if found.first is None:
        render.line(f"first       no value differs by more than {view.tolerance:g}")
    else:
        first = found.first
        render.line(
            f"first       {first.operator} {first.name} of call {first.call}:"
            f" {first.relative:.3g} (tolerance {view.tolerance:g})"
        )
    if found.worst is not None:
        worst = found.worst
        render.line(f"worst       {worst.operator} {worst.name}: {worst.relative:.3g}")
    render.line()
    render.table(
        ("output", "relative rms", "largest difference"),
        [(row.name, row.relative, row.largest) for row in view.outputs],
    )
    render.line(render.status("passed" if view.passed else "failed"))
