"""The generated parts of the documentation; `make docs` writes them, `make check` compares them."""

from __future__ import annotations

import inspect
import os
import re
import sys
import typing
from pathlib import Path

import click
from pydantic import BaseModel

from mobilepack.cli.app import VERBS, root
from mobilepack.ios import IosFile
from mobilepack.soc import SocFile, load_soc, soc_models
from mobilepack.target import TargetFile, load_target, target_names

ROOT = Path(__file__).resolve().parent.parent


def target_table() -> str:
    """Return the table of shipped targets."""
    rows = ["| target | backend | default recipe | runs on |", "| --- | --- | --- | --- |"]
    for name in target_names():
        target = load_target(name)
        recipe = target.recipe.linear_text
        recipe += f", embedding {target.recipe.embedding}"
        rows.append(f"| `{name}` | {target.backend} | {recipe} | {', '.join(target.runs_on)} |")
    return "\n".join(rows) + "\n"


def benchmark_tables(name: str) -> str:
    """Return the tables of a results document of `benchmarks/results`, and what it ran on."""
    sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed
    from benchmarks.record import Document
    from benchmarks.tables import render

    document = Document.load(ROOT / "benchmarks" / "results" / f"{name}.json")
    host = document.host
    where = f"{document.started_utc[:10]}, {host.cpu_count} cores of {host.cpu_model.strip()}"
    return f"{where}:\n\n{render(document)}\n"


def compression_table() -> str:
    """Return the table of `benchmarks/results/compression/embedded.json`."""
    sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed
    from benchmarks.compress import render

    return render()


def mil_operators() -> str:
    """Return the table of operators that the interpreter knows, by group."""
    from mobilepack.mil.ops import GROUPS, OPERATORS
    from mobilepack.mil.plan import STRUCTURAL
    from mobilepack.mil.program import OPSETS

    rows = ["| group | operators |", "| --- | --- |"]
    for group in GROUPS:
        name = group.__name__.rpartition(".")[2]
        known = sorted(key for key, entries in OPERATORS.items() if entries[0].group == name)
        cells = []
        for key in known:
            later = [OPSETS[entry.since] for entry in OPERATORS[key] if entry.since > "CoreML5"]
            again = f" (another meaning since {later[0]})" if len(OPERATORS[key]) > 1 else ""
            cells.append(f"`{key}`{again}")
        rows.append(f"| {name.replace('_', ' and ')} | {', '.join(cells)} |")
    structural = ", ".join(f"`{name}`" for name in sorted(STRUCTURAL))
    rows.append(f"| control flow, states, constants | {structural} |")
    count = len(OPERATORS) + len(STRUCTURAL)
    return f"{count} operators:\n\n" + "\n".join(rows) + "\n"


def lint_rules() -> str:
    """Return the table of the Neural Engine lint's rules."""
    from mobilepack.mil.lint.run import rules

    rows = [
        "| id | rule | level | why | remedy | source |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| {r.id} | {r.name} | {r.level} | {r.why} | {r.remedy} | {r.source} |" for r in rules()
    ]
    return "\n".join(rows) + "\n"


def mil_benchmark() -> str:
    """Return the table of `benchmarks/results/mil.json`."""
    sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed
    from benchmarks.mil import render

    return render()


def mil_large_benchmark() -> str:
    """Return the table of `benchmarks/results/mil_large.json`."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.mil_large import render

    return render()


def coreml_benchmark() -> str:
    """Return the table of `benchmarks/results/coreml.json`."""
    sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed
    from benchmarks.coreml import render

    return render()


def qnn_depth() -> str:
    """Return the sentence of `benchmarks/results/qnn-depth.json`."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.qnn_depth import render

    return render()


def ios_keys() -> str:
    """Return the table of the keys of a level of iOS."""
    return "\n".join(_keys_of(IosFile, ""))


def target_keys() -> str:
    """Return one table per table of a target file, from the models and their docstrings."""
    return "\n".join(_keys_of(TargetFile, ""))


def soc_keys() -> str:
    """Return the table of a SoC file's keys."""
    return "\n".join(_keys_of(SocFile, ""))


def _keys_of(model: type[BaseModel], prefix: str) -> list[str]:
    texts = _attributes(model)
    rows = [f"### {f'`[{prefix}]`' if prefix else 'At the top'}", ""]
    rows += ["| key | value | meaning |", "| --- | --- | --- |"]
    nested: list[str] = []
    for name, field in model.model_fields.items():
        key, kind = field.alias or name, field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            nested += _keys_of(kind, f"{prefix}.{key}".lstrip("."))
            continue
        needed = "" if field.is_required() else " (optional)"
        rows.append(f"| `{key}` | {_type_text(kind)}{needed} | {texts.get(name, '')} |")
    return ([*rows, ""] if len(rows) > 4 else []) + nested


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """Return the `Attributes:` section of a docstring as name → text."""
    section = (inspect.getdoc(model) or "").partition("Attributes:\n")[2]
    items = re.findall(r"^ {4}(\w+): (.*(?:\n {6,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in items}


def _type_text(kind: object) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(f"`{value!r}`".replace("'", '"') for value in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        (item, *_) = typing.get_args(kind)
        return "array of text" if item is str else "array of tables `name`, `source`"
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    options = [names[arg] for arg in typing.get_args(kind) or (kind,) if arg in names]
    return " or ".join(options)


def cli_reference() -> str:
    """Return the help page of every verb."""
    pages = [_help(["mobilepack"], root)]
    with click.Context(root) as context:
        for verb in VERBS:
            command = root.get_command(context, verb)
            if command is None:
                raise LookupError(verb)
            pages.append(_help(["mobilepack", verb], command))
            members = command.commands if isinstance(command, click.Group) else {}
            pages += [_help(["mobilepack", verb, name], item) for name, item in members.items()]
    return "\n".join(pages)


def _help(path: list[str], command: click.Command) -> str:
    settings = {**root.context_settings, "max_content_width": 100, "terminal_width": 100}
    context = click.Context(root, info_name=path[0], **settings)
    for name in path[1:]:
        context = click.Context(command, info_name=name, parent=context)
    text = click.unstyle(command.get_help(context)).strip()
    return f"## {' '.join(path)}\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    sys.stdout.write(cli_reference())


def soc_table() -> str:
    """Return the table of SoCs."""
    rows = [
        "| SoC | sold as | Hexagon | VTCM | fp16 | LPBQ | weights shared | phones |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for soc in map(load_soc, soc_models()):
        marks = (soc.fp16, soc.block_quantisation, soc.weight_sharing)
        known = " | ".join("yes" if mark else "no" for mark in marks)
        phones = ", ".join(f"[{phone.name}]({phone.source})" for phone in soc.phones)
        rows.append(
            f"| `{soc.model}` | {soc.title} | V{soc.hexagon} | {soc.vtcm_mb} MB | {known} |"
            f" {phones} |"
        )
    return "\n".join(rows) + "\n"


def qnn_failures() -> str:
    """Return the table of QNN's failures in the field."""
    from mobilepack.backends.qnn.field_errors import RULES

    rows = ["| codes | what it is | what to do | seen |", "| --- | --- | --- | --- |"]
    for rule in RULES:
        codes = ", ".join(map(str, rule.codes)) or "none"
        remedy = rule.remedy.replace("|", "\\|").replace("<", "&lt;")
        rows.append(f"| {codes} | {rule.cause} | {remedy} | {rule.source} |")
    return "\n".join(rows) + "\n"
