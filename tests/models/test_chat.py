from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mobilepack.errors import UsageError
from mobilepack.models.chat import ChatMessage, ChatTemplate
from tests.models.checkpoints import CHAT_TEMPLATE, edit_json
from tests.models.conftest import Made
from tests.models.test_tokenizer import reference

TALK = (
    ChatMessage("system", "Be brief."),
    ChatMessage("user", "  What is <b>2 & 2</b>?\n"),
    ChatMessage("assistant", "4 'quoted' \"twice\""),
    ChatMessage("user", "日本語?"),
)
# One template per thing that real templates use.
TEMPLATES = {
    "chatml": CHAT_TEMPLATE,
    "special tokens": "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}"
    "{% endfor %}{{ pad_token is defined }}{{ unk_token }}",
    "white space control": "{% for m in messages %}\n    {%- if loop.first %}\n  first\n"
    "    {% endif %}\n{{ m['role'] | trim }}\n{% endfor %}\n",
    "loop controls": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "{{ m.content }}{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}",
    "tojson": "{{ messages | tojson }} {{ messages[0] | tojson(indent=2, sort_keys=true) }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.n }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% endfor %}",
    "tools are none": "{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }}",
    "slices and tests": "{{ messages[1:][::-1][0]['content'].split('?')[0] | upper }}"
    "{{ (messages | selectattr('role', 'equalto', 'user') | list) | length }}",
    "macro": "{% macro turn(m) -%} [{{ m.role }}] {{ caller() if caller is defined }}"
    "{%- endmacro %}{{ turn(messages[0]) }}",
    "dict": "{{ dict(a=1) | tojson }}",
}


def render_theirs(folder: Path, prompt: bool) -> str:
    messages = [{"role": m.role, "content": m.content} for m in TALK]
    text = reference(folder).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=prompt
    )
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_renders_as_in_transformers(copied: Made, name: str, prompt: bool) -> None:
    folder = copied()
    changes = {"chat_template": TEMPLATES[name], "unk_token": "<|im_start|>"}
    edit_json(folder / "tokenizer_config.json", **changes)
    text = ChatTemplate.open(folder).render(TALK, add_generation_prompt=prompt)
    assert text == render_theirs(folder, prompt)


def test_the_date_is_today_s(copied: Made) -> None:
    folder = copied(chat_template="{{ strftime_now('%Y-%m-%d') }}")
    assert ChatTemplate.open(folder).render(TALK) == render_theirs(folder, True)


def test_a_template_file_wins_over_the_config(copied: Made) -> None:
    folder = copied()
    (folder / "chat_template.jinja").write_text("from the file: {{ messages[0].content }}")
    assert ChatTemplate.open(folder).render(TALK) == render_theirs(folder, True)
    assert ChatTemplate.open(folder).render(TALK).startswith("from the file")


def test_of_several_templates_the_default_is_taken(copied: Made) -> None:
    folder = copied()
    named = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "default of {{ messages | length }}"},
    ]
    edit_json(folder / "tokenizer_config.json", chat_template=named)
    assert ChatTemplate.open(folder).render(TALK) == render_theirs(folder, True)


def test_a_base_model_has_a_plain_prompt_without_roles(made: Made) -> None:
    template = ChatTemplate.open(made(chat_template=None))
    assert template.plain
    assert template.render(TALK[:1]) == "Be brief."
    assert template.render(TALK[:2]) == "Be brief.\n  What is <b>2 & 2</b>?\n"
    assert not ChatTemplate.open(made()).plain


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{% for %}", "Expected"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[99].content }}", "no element 99"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ range(10 ** 9) | list }}", "Range too big"),
    ],
)
def test_a_template_that_fails_is_one_clear_error(copied: Made, template: str, cause: str) -> None:
    folder = copied(chat_template=template)
    with pytest.raises(UsageError) as failure:
        ChatTemplate.open(folder).render(TALK)
    assert failure.value.code == "chat-template"
    assert cause in failure.value.why


@pytest.mark.parametrize("value", [3, [], [{"name": "x", "template": "y"}], {"default": "x"}, [1]])
def test_a_template_that_is_none_of_the_known_forms_is_refused(copied: Made, value: Any) -> None:
    folder = copied()
    edit_json(folder / "tokenizer_config.json", chat_template=value)
    with pytest.raises(UsageError) as failure:
        ChatTemplate.open(folder)
    assert failure.value.code == "invalid-chat-template"


def test_a_template_file_that_is_no_text_is_refused(copied: Made) -> None:
    folder = copied()
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="utf-8"):
        ChatTemplate.open(folder)


def test_a_sentencepiece_folder_knows_llama_s_tokens(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"not opened here")
    config = {"chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert ChatTemplate.open(tmp_path).render(TALK) == "<s>Be brief.</s>"
