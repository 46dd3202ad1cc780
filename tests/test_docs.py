"""What the documentation tells people to type, the command line understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from mobilepack.cli.app import VERBS, root
from mobilepack.errors import ExitCode

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXIT_CODES = ROOT / "docs" / "reference" / "exit-codes.md"


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _commands(path: Path) -> list[list[str]]:
    """Return what stands behind `mobilepack` in a page's blocks and code spans."""
    text = path.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(?:console|text|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in fenced for line in block.splitlines()]
    lines += re.findall(r"`(mobilepack [^`]+)`", text)
    words = [shlex.split(re.split(r"  +| # | \\?\| ", line)[0]) for line in lines if _is_ours(line)]
    return [line[1:] for line in words]


def _is_ours(line: str) -> bool:
    return re.match(r"mobilepack [a-z-]", line) is not None


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_commands_in_the_docs_parse(path: Path) -> None:
    for words in _commands(path):
        if words[0].startswith("-"):
            continue
        with click.Context(root, info_name="mobilepack") as context:
            command = root.get_command(context, words[0])
            if isinstance(command, click.Group) and len(words) > 1:
                command, words = command.get_command(context, words[1]), words[1:]
            assert command is not None, words
            arguments = words[1:]
            if isinstance(command, click.Group) and arguments[:1] not in ([], ["--help"]):
                command, arguments = command.commands[arguments[0]], arguments[1:]
            parser = command.make_parser(click.Context(command, parent=context))
            _, rest, _ = parser.parse_args(arguments)
            assert len([word for word in rest if word]) <= 2, words


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert "://" in link or (path.parent / link).exists(), link


def test_every_exit_code_is_documented() -> None:
    documented = re.findall(r"^\| (\d+) \|", EXIT_CODES.read_text(), re.MULTILINE)
    assert {int(code) for code in ExitCode} <= {int(code) for code in documented}


def test_every_verb_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "reference" / "cli.md").read_text()
    assert all(f"## mobilepack {verb}\n" in reference for verb in VERBS)


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "env"])
def test_the_makefile_has_the_targets_that_the_readme_names(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_make_checks_every_generated_page() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (listed,) = re.findall(r"^GENERATED := (.*)$", makefile, re.MULTILINE)
    pages = [*PAGES, *(ROOT / "targets").glob("*.md")]
    generated = {_name(page) for page in pages if "[[[cog" in page.read_text(encoding="utf-8")}
    assert set(listed.split()) == generated
