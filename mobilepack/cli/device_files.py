"""`mobilepack device-files`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, render
from mobilepack.errors import ExitCode

if TYPE_CHECKING:
    from mobilepack.commands.device_files import DeviceFiles


@click.command(
    epilog="""\b
Example
  mobilepack device-files --target qnn --soc-model SM8750
  mobilepack device-files out/qnn --from qnn-runtime-2.50.0.aar -o push
  mobilepack device-files out/qnn --from /opt/qairt/2.50.0 --json
"""
)
@click.argument("package", required=False, metavar="[PACKAGE]", type=click.Path(path_type=Path))
@click.option(
    "--target",
    default="qnn",
    show_default=True,
    metavar="NAME",
    help="Target that the files are for, without a package.",
)
@click.option(
    "--soc-model", metavar="NAME", help="SoC of the phone. Default: the package's or target's."
)
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="QAIRT SDK's folder or qnn-runtime's AAR: look for the files there.",
)
@click.option(
    "-o",
    "--output-dir",
    "out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Copy the files that were found there.",
)
@options.json_option
def command(
    package: Path | None,
    target: str,
    soc_model: str | None,
    source: Path | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """List what must be on the phone beside a package, and check or copy it.

    Ends with exit code 5 when the source lacks a file or has it in a version that is too old.
    """
    from mobilepack.commands.device_files import DeviceFilesOptions, device_files

    found = device_files(DeviceFilesOptions(package, target, soc_model, source, out))
    if as_json:
        render.document("device-files", render.plain(found))
    else:
        print_files(found)
    return ExitCode.MISSING if any(item.problem for item in found.found) else ExitCode.OK


def print_files(found: DeviceFiles) -> None:
    """Print the list, how to use it, and what was found."""
    soc = found.soc
    render.line(f"{soc.model} ({soc.title}, Hexagon V{soc.hexagon}); compiled by QNN"
                f" {found.compiled}: the runtime must be that or newer")  # fmt: skip
    states = {item.file.name: item for item in found.found}
    rows = []
    for file in found.files:
        item = states.get(file.name)
        state = "" if item is None else item.problem or f"{render.size(item.bytes)} {item.version}"
        if item is not None and not item.bytes and not item.problem:
            state = "not there, not needed"
        rows.append((file.name, file.purpose, file.sdk, state))
    render.table(("file", "purpose", "in a QAIRT SDK", "found"), rows)
    render.line()
    render.line("command line: push them and the program to one folder, then in it")
    exports = " ".join(f"{name}={value}" for name, value in found.environment.items())
    render.line(f"  export {exports}")
    render.line("app: Gradle dependencies")
    for artefact in found.artefacts:
        render.line(f'  implementation("{artefact}")')
    render.line("app: AndroidManifest.xml, inside <application>")
    render.line(f"  {found.native_library}")
    for path in found.written:
        render.line(f"copied {path}")
