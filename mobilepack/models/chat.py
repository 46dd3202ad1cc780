"""A checkpoint's chat template, rendered as transformers renders it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mobilepack.errors import UsageError
from mobilepack.models.config import Json, read_json
from mobilepack.models.tokenizer import TOKENIZER_CONFIG, special_tokens

if TYPE_CHECKING:
    import jinja2

TEMPLATE_FILE = "chat_template.jinja"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn of a conversation; the role is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """How a conversation becomes the text that a model was trained on.

    Attributes:
        source: The Jinja template, None for a model without one.
        special: Named special tokens, which templates refer to.
    """

    source: str | None
    special: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the template of a checkpoint or package folder.

        chat_template.jinja wins over tokenizer_config.json, and of several named templates the
        one called `default` is taken, as transformers 5.23 does.

        Raises:
            UsageError: The template cannot be read.
        """
        file, config = folder / TEMPLATE_FILE, folder / TOKENIZER_CONFIG
        if file.is_file():
            source: str | None = _read_text(file)
        else:
            found = read_json(config).get("chat_template") if config.is_file() else None
            source = _default(found, config)
        return cls(source, special_tokens(folder))

    @property
    def plain(self) -> bool:
        """Whether there is no template: a base model, which completes text."""
        return self.source is None

    def render(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = True) -> str:
        """Return the prompt of a conversation.

        Without a template the contents are joined by newlines and no role is written: a base
        model has learned none, and an invented format would look like an answerable question.

        Args:
            messages: The conversation so far.
            add_generation_prompt: Whether the prompt ends where the assistant's answer begins.

        Raises:
            UsageError: The template is broken or refuses this conversation.
        """
        if self.source is None:
            return "\n".join(message.content for message in messages)
        plain = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return _compile(self.source).render(
                messages=plain,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.special,
            )
        # A template is somebody's program: it can fail in any way a program can.
        except Exception as err:
            raise UsageError(
                "chat-template",
                "the checkpoint's chat template cannot render this conversation",
                why=f"{type(err).__name__}: {err}",
                next="change the order of the roles or the system message, or use plain prompts",
            ) from err


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise _invalid(path, str(err)) from err


def _default(found: Json, path: Path) -> str | None:
    """Return the template that `chat_template` holds, as a text or as a list of named ones."""
    if found is None or isinstance(found, str):
        return found or None
    named: dict[str, str] = {}
    for item in found if isinstance(found, list) else ():
        name, text = (item.get("name"), item.get("template")) if isinstance(item, dict) else (0, 0)
        if isinstance(name, str) and isinstance(text, str):
            named[name] = text
    if "default" not in named:
        raise _invalid(path, "chat_template is neither a text nor a list with one named 'default'")
    return named["default"]


def _invalid(path: Path, why: str) -> UsageError:
    return UsageError(
        "invalid-chat-template",
        f"cannot read the chat template of {path}",
        why=why,
        next="download the file again, or remove chat_template from it",
    )


@lru_cache(maxsize=8)
def _compile(source: str) -> jinja2.Template:
    """Compile in a sandbox, with what transformers 5.23 `_compile_jinja_template` provides."""
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from mobilepack.models.chat_extension import GenerationBlock

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON without the HTML escapes of Jinja's own filter."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(template: str) -> str:
    return datetime.now().strftime(template)  # noqa: DTZ005 (local time, as transformers)
