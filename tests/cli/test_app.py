"""The root command and what holds for every verb."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from mobilepack import __version__
from mobilepack.cli import build_options
from mobilepack.cli.app import VERBS, root
from mobilepack.contract import compression, manifest


def _verb(name: str) -> click.Command:
    command: click.Command | None = root
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    return command


def _leaves() -> list[str]:
    """Return every command that does something: verbs, and the members of groups."""
    found = []
    for name in VERBS:
        verb = _verb(name)
        members = verb.commands if isinstance(verb, click.Group) else None
        found += [name] if members is None else [f"{name} {member}" for member in members]
    return found


@pytest.mark.parametrize("name", VERBS)
def test_the_list_of_verbs_says_what_each_verb_says_itself(name: str) -> None:
    first = inspect.cleandoc(_verb(name).help or "").split("\n\n")[0].replace("\n", " ")
    assert first == VERBS[name]


@pytest.mark.parametrize("name", _leaves())
def test_every_help_page_has_an_example_that_parses(name: str) -> None:
    command = _verb(name)
    assert command.epilog is not None
    lines = re.findall(rf"mobilepack {name}\b(.*)", command.epilog)
    assert lines
    for line in lines:
        words = re.sub(r" > \S+$", "", line).replace('"', "").split()
        inner = command
        if isinstance(command, click.Group):
            inner, words = command.commands[words[0]], words[1:]
        with click.Context(root, info_name="mobilepack") as parent:
            parent.obj = None
            parser = inner.make_parser(click.Context(inner, parent=parent))
            _, rest, _ = parser.parse_args(words)
        allowed = sum(isinstance(param, click.Argument) for param in command.params)
        assert len([word for word in rest if word]) <= allowed + 4  # a prompt is several words


@pytest.mark.parametrize("name", _leaves())
def test_every_option_says_what_it_does(name: str) -> None:
    for param in _verb(name).params:
        assert isinstance(param, click.Argument) or getattr(param, "help", None), param.name


@pytest.mark.parametrize("name", _leaves())
def test_every_verb_speaks_json(name: str) -> None:
    verb = _verb(name)
    commands = verb.commands.values() if isinstance(verb, click.Group) else [verb]
    for command in commands:
        assert any("--json" in param.opts for param in command.params), command.name


def test_no_arguments_are_a_question_for_help(run: Callable[..., Any]) -> None:
    ran = run()
    assert ran.code == 0
    assert ran.out == run("--help").out == run("-h").out
    assert all(f"  {verb} " in ran.out for verb in VERBS)


def test_the_version_is_printed(run: Callable[..., Any]) -> None:
    assert run("--version").out == f"mobilepack {__version__}\n"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (build_options.LINEAR, manifest.LinearRecipe),
        (build_options.EMBEDDING, manifest.EmbeddingRecipe),
        (build_options.KV_CACHE, manifest.KvCacheRecipe),
        (build_options.LOWERING, manifest.Lowering),
        (build_options.CALIBRATION, compression.Calibration),
    ],
)
def test_option_values_are_those_of_the_manifest(ours: tuple[str, ...], theirs: Any) -> None:
    assert set(ours) == set(theirs.__args__)


def test_group_sizes_are_those_of_the_manifest() -> None:
    annotation: Any = manifest.Recipe.model_fields["group_size"].annotation
    assert {int(size) for size in build_options.GROUP_SIZES} | {0} == set(annotation.__args__)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--recipe", "8da4"], "did you mean '8da4w'?"),
        (["--qlinear", "8da4"], "did you mean '8da4w'?"),
        (["--qembedding", "17w"], "'17w' is not known; "),
        (["--group-size", "48"], "'48' is not known; "),
        (["--kv-cache", "pf16"], "did you mean 'fp16'"),
        (["--lowering", "slow"], "'slow' is not known; "),
        (["--max-seq-len", "1"], "1 is not in the range x>=2"),
        (["--prefill-chunk", "0"], "0 is not in the range x>=1"),
        (["a", "--model", "b"], "the argument says 'a', --model says 'b'"),
        (["--target", "tpu"], "choose from coreml, coreml-"),
        (["--target", "./absent.toml"], "No such file"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "build"])
def test_a_bad_value_is_named_with_what_is_allowed(
    run: Callable[..., Any], verb: str, arguments: list[str], why: str
) -> None:
    ran = run(verb, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err


@pytest.mark.parametrize("verb", ["plan", "build", "inspect"])
@pytest.mark.parametrize("model", ["absent/folder/x", "/dev/null", "..", "a b", "~nobody/x"])
def test_a_model_that_is_none_is_a_usage_error(
    run: Callable[..., Any], verb: str, model: str
) -> None:
    ran = run(verb, model, "--offline")
    assert ran.code in (2, 5)
    assert ran.out == ""
    assert ran.err.startswith("error[")
    assert "error[bug]" not in ran.err


@pytest.mark.parametrize("out", ["/dev/null", "file/below", "/proc/mobilepack"])
def test_a_folder_that_cannot_be_made_fails_before_any_work(
    run: Callable[..., Any], tmp_path: Path, out: str
) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (["build", "-o", out], ["report", "--html", f"{out}/x.html"]):
        ran = run(*arguments)
        assert ran.code == 2
        assert ran.err.startswith("error[unwritable-folder]")


def test_colour_needs_a_terminal_and_yields_to_no_color(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("targets").out
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b" not in run("targets").out
