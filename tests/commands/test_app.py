"""app android: a project of the user's own, with their package in it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilepack.commands.app import AppOptions, android_app
from mobilepack.commands.app_files import prompt_template
from mobilepack.contract.base import content_id
from mobilepack.contract.manifest import BuildPlan, StaticForm
from mobilepack.contract.package import MANIFEST, file_entry
from mobilepack.errors import UsageError
from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.zoo import embedded_path
from tests.harness.parts import quantised
from tests.models.test_tokenizer import train_sentencepiece
from tests.packages import toy_package

__all__ = ["quantised"]
DEMO = Path(__file__).parents[2] / "android_demo"


def repacked(package: Path, to: Path, *, tokenizer: bytes) -> Path:
    """Copy a package with another tokenizer and a manifest that knows it."""
    shutil.copytree(package, to)
    (to / "tokenizer.json").write_bytes(tokenizer)
    manifest = json.loads((to / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["path"] == "tokenizer.json":
            entry |= {"bytes": len(tokenizer), "sha256": hashlib.sha256(tokenizer).hexdigest()}
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to


def sources(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def test_without_a_package_it_is_the_demo_s_sources(tmp_path: Path) -> None:
    written = android_app(AppOptions(tmp_path / "mine"))
    assert (written.variant, written.bundled) == ("xnnpackDebug", {})
    assert sources(tmp_path / "mine") == sources(DEMO)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_application_id_is_the_only_thing_that_changes(tmp_path: Path) -> None:
    android_app(AppOptions(tmp_path / "mine", application_id="com.example.chat_2"))
    ours, theirs = sources(tmp_path / "mine"), sources(DEMO)
    changed = [name for name in theirs if ours[name] != theirs[name]]
    assert changed == ["app/build.gradle.kts"]
    assert b'applicationId = "com.example.chat_2"' in ours["app/build.gradle.kts"]


@pytest.mark.parametrize("name", ["", "chat", "a b.c", "com..x", "com.1x", 'x.y"\n', "x.ü"])
def test_what_is_no_application_id_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no app can have"):
        android_app(AppOptions(tmp_path / "mine", application_id=name))
    assert not (tmp_path / "mine").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    android_app(AppOptions(tmp_path / "mine"))  # an empty one is free
    (tmp_path / "mine/README.md").write_text("my notes")
    with pytest.raises(UsageError, match="already"):
        android_app(AppOptions(tmp_path / "mine"))
    assert (tmp_path / "mine/README.md").read_text() == "my notes"


@pytest.mark.slow
def test_a_package_becomes_the_app_s_assets(
    quantised: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    done = run("app", "android", tmp_path / "mine", quantised, "--json")
    assert done.code == 0, done.err
    assets = tmp_path / "mine/app/src/main/assets/package"
    names = {path.name for path in assets.iterdir()}
    assert set(done.document["bundled"]) == names
    assert names == {"model.pte", "tokenizer.json", "manifest.json", "prompt.txt"}
    program = (quantised / "model.pte").read_bytes()
    assert (assets / "model.pte").read_bytes() == program
    assert "{message}" in (assets / "prompt.txt").read_text()
    assert done.document["variant"] == "xnnpackDebug"


def npu_package(root: Path, mask: str) -> Path:
    """Write a QNN package: a program for the emulator, one for the phone, masks of a type."""
    package = toy_package(root)
    (package / "model.phone.pte").write_bytes(b"the phone's")
    manifest = json.loads((package / MANIFEST).read_text())
    form = StaticForm(past=64, prefill_tokens=32, mask_value=-1e4, windows=(0,))
    tensor = {"name": "mask", "dtype": mask, "shape": [1, 1, 1, 65]}
    method = {"name": "decode", "inputs": [tensor, tensor], "outputs": []}
    programs = {"emulator_program": "model.pte", "phone_program": "model.phone.pte"}
    hashes = {"graphs_sha256": {}, "weights_sha256": "0" * 64}
    plan = BuildPlan.parse(json.dumps(manifest["plan"] | {"backend": "qnn"}), "plan")
    manifest |= {
        "static": form.model_dump(),
        "methods": [method],
        "npu": {**programs, "contexts": [], "graphs": [], **hashes},
        "plan": plan.model_dump(mode="json"),
        "plan_id": content_id(plan),
    }
    manifest["files"].append(file_entry(package, "model.phone.pte").model_dump())
    (package / MANIFEST).write_text(json.dumps(manifest))
    return package


def test_a_package_for_the_npu_brings_the_phone_s_program_into_the_npu_s_variant(
    tmp_path: Path,
) -> None:
    package = npu_package(tmp_path / "package", "float32")
    written = android_app(AppOptions(tmp_path / "mine", package))
    assert written.variant == "qnnDebug"
    assets = tmp_path / "mine/app/src/main/assets/package"
    assert (assets / "model.pte").read_bytes() == b"the phone's"
    assert (assets / MANIFEST).read_bytes() == (package / MANIFEST).read_bytes()


def test_a_program_that_the_app_cannot_call_is_refused(tmp_path: Path) -> None:
    package = npu_package(tmp_path / "package", "uint16")
    with pytest.raises(UsageError) as refused:
        android_app(AppOptions(tmp_path / "mine", package))
    assert refused.value.code == "app-dtype"
    assert refused.value.why.startswith("mask of decode is uint16, and ExecuTorch's Java API has ")
    assert "(2 tensors are of others)" in refused.value.why
    assert not (tmp_path / "mine").exists()


def test_a_prompt_without_template_begins_with_the_token_that_runners_do_not_add(
    tmp_path: Path,
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        source = embedded_path() / name
        if source.is_file():
            shutil.copy2(source, tmp_path)
    config = tmp_path / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    settings.pop("chat_template", None)
    config.write_text(json.dumps(settings))
    prompt = prompt_template(tmp_path)
    assert prompt == "<|bos|>{message}"
    tokenizer = Tokenizer.open(tmp_path)
    for text in ("Once upon a time", " spaced", "äöü"):
        ids = tokenizer.encode(prompt.replace("{message}", text), add_bos=False)
        assert ids == tokenizer.encode(text)  # what the ladder's rungs run


def test_sentencepiece_s_first_token_is_marked_for_it_is_not_read_out_of_a_text(
    tmp_path: Path,
) -> None:
    train_sentencepiece(tmp_path)
    assert prompt_template(tmp_path, mark="{bos}") is None  # nothing says that it has one
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    assert prompt_template(tmp_path, mark="{bos}") == "{bos}{message}"
    assert prompt_template(tmp_path) is None
    tokenizer = Tokenizer.open(tmp_path)
    assert tokenizer.encode("hello") == [1, *tokenizer.encode("hello", add_bos=False)]
    template = "{{ bos_token }}[INST] {{ messages[0].content }} [/INST]"
    (tmp_path / "chat_template.jinja").write_text(template)
    assert prompt_template(tmp_path, mark="{bos}") == "{bos}[INST] {message} [/INST]"
    assert prompt_template(tmp_path) == "<s>[INST] {message} [/INST]"


def test_the_prompt_is_the_template_s_first_turn(tmp_path: Path) -> None:
    assert prompt_template(tmp_path) is None
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    (tmp_path / "chat_template.jinja").write_text(template)
    assert prompt_template(tmp_path) == "<user>{message}<assistant>"
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content | upper }}")
    with pytest.raises(UsageError, match="as it is"):
        prompt_template(tmp_path)


def test_a_folder_that_is_no_package_leaves_nothing(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    done = run("app", "android", tmp_path / "mine", tmp_path / "absent")
    assert done.code == 5
    assert "no-package" in done.err
    assert not (tmp_path / "mine").exists()
