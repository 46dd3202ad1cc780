"""The public Python API: every name is there, typed, and costs nothing until it is used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mobilepack

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "python.md"


@pytest.mark.parametrize("name", mobilepack.__all__)
def test_every_public_name_is_there_with_its_description(name: str) -> None:
    found = getattr(mobilepack, name)
    assert found.__doc__
    assert found.__module__.startswith("mobilepack.")


def test_the_lists_of_names_agree() -> None:
    assert sorted(mobilepack._MODULES) == mobilepack.__all__ == sorted(mobilepack.__all__)
    assert set(mobilepack.__all__) <= set(dir(mobilepack))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        _ = mobilepack.biuld  # type: ignore[attr-defined]


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, mobilepack; print({'torch', 'pydantic', 'click'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert examples
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102 - our own page
