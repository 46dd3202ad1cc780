"""The shape of the tree: file lengths, who imports what, and what a help page costs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "mobilepack").rglob("*.py"))
LONGEST_FILE_LINES = 500
VENDORS = {"executorch", "torchao", "coremltools", "onnxruntime"}
# harness/host_child is the runtime's process: it is never imported, only started; what it runs ONNX
# with is loaded there only.
_RUNTIMES = ("harness/host_child", "harness/onnx_program")
# the stand-in for Apple's tools is a program of its own, whose apps outlive it as theirs do
STAND_IN = "testing/apple/"
VENDOR_FLOORS = ("pipeline", "backends", "mil", "models/decoder", *_RUNTIMES)
HEAVY = {"torch", "numpy", "pydantic", "rich", "transformers", "executorch", "huggingface_hub"}
# Measured: 1.2 to 1.6 (0.07 to 0.11 s); one import of numpy would make it 4.
HELP_TO_CLICK = 2.5


def _imports(path: Path) -> set[str]:
    """Return the top-level packages that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def _room(path: Path) -> str:
    return path.relative_to(ROOT / "mobilepack").as_posix()


def test_no_file_is_too_long_to_know() -> None:
    folders = ("mobilepack", "tests", "benchmarks", "tools", "docs")
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE_LINES
    }
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=_room)
def test_subprocess_has_one_caller_and_vendors_stay_on_their_floor(path: Path) -> None:
    room, imports = _room(path), _imports(path)
    assert "subprocess" not in imports or room == "process.py" or room.startswith(STAND_IN)
    assert not imports & VENDORS or room.startswith(VENDOR_FLOORS)


def _child(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_pages_load_nothing_heavy() -> None:
    code = (
        "import contextlib, io, sys\n"
        "from mobilepack.__main__ import main\n"
        "from mobilepack.cli.app import VERBS\n"
        "pages = [['--help'], ['--version'], [], *([verb, '--help'] for verb in VERBS)]\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    codes = [main(page) for page in pages]\n"
        f"print(codes, sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = _child(code)
    assert re.fullmatch(r"\[(0, )*0\] \[\]\n", done.stdout), (done.stdout, done.stderr)


def _cpu_s(arguments: list[str]) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, *arguments]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_the_help_page_costs_little_more_than_click_itself() -> None:
    """Compare with `import click`, alternately: seconds would measure the neighbours."""
    help_page, click = ["-m", "mobilepack", "--help"], ["-c", "import click"]
    pairs = [(_cpu_s(help_page), _cpu_s(click)) for _ in range(7)]
    assert min(page for page, _ in pairs) < HELP_TO_CLICK * min(bare for _, bare in pairs)


def test_constraints_pin_everything_and_name_no_index() -> None:
    text = (ROOT / "constraints.txt").read_text()
    rows = [row for row in text.splitlines() if row and not row.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[A-Za-z0-9.]+", row) for row in rows)
    names = {row.partition("==")[0] for row in rows}
    assert not {name for name in names if name.startswith(("nvidia", "triton", "cuda"))}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    assert {re.split(r"[=<>~! \[]", row)[0].lower() for row in wanted} <= names
    exact = {row.partition(";")[0] for row in wanted if "==" in row.partition(";")[0]}
    assert exact <= set(rows)


@pytest.mark.parametrize("name", ["Makefile", "pyproject.toml", "constraints.txt", ".ci/run"])
def test_set_up_files_name_no_registry(name: str) -> None:
    assert "://" not in (ROOT / name).read_text()


def test_the_makefile_knows_no_folder_outside() -> None:
    assert "shared" not in (ROOT / "Makefile").read_text()


def test_ci_runs_exactly_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "exec make test"
