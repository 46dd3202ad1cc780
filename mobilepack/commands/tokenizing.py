"""Whether a package tokenises and renders chats as the checkpoint that it was built from does."""

from __future__ import annotations

from pathlib import Path

from mobilepack.errors import MobilepackError
from mobilepack.models.causes import Cause
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.tokenizer import Tokenizer

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces, a tab\tand a newline\n",
    "Grüße, 世界! naïve café 🙂 1234567890",
    "def f(x):\n    return x ** 2  # code",
)
_CHATS = (
    (ChatMessage("user", "Hello"),),
    (ChatMessage("system", "Be brief."), ChatMessage("user", "What is 12 + 30?")),
    (ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello!"), ChatMessage("user", "Bye")),
)
_COPY = "copy the file from the checkpoint into the package's folder of the app, or build again"


def tokenizer_fault(package: Path, checkpoint: Path) -> Cause | None:
    """Return what the package's tokenizer or chat template does otherwise, None if nothing."""
    mine, theirs = Tokenizer.open(package), Tokenizer.open(checkpoint)
    for text in TEXTS:
        found, expected = mine.encode(text), theirs.encode(text)
        if found != expected:
            at = next(
                (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), 0
            )
            told = f"{text!r} becomes other tokens, from token {at} on: "
            told += f"{found[at : at + 4]} instead of {expected[at : at + 4]}"
            return Cause("wrong-tokenizer", told, _COPY, 1.0)
    return _template_fault(package, checkpoint)


def _template_fault(package: Path, checkpoint: Path) -> Cause | None:
    mine, theirs = ChatTemplate.open(package), ChatTemplate.open(checkpoint)
    for chat in _CHATS:
        found, expected = _rendered(mine, chat), _rendered(theirs, chat)
        if found != expected:
            pairs = zip(found, expected, strict=False)
            at = next(
                (i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected))
            )
            told = f"a chat of {len(chat)} messages is rendered otherwise from character {at} on: "
            told += f"{found[at : at + 40]!r} instead of {expected[at : at + 40]!r}"
            return Cause("wrong-chat-template", told, _COPY, 1.0)
    return None


def _rendered(template: ChatTemplate, chat: tuple[ChatMessage, ...]) -> str:
    try:
        return template.render(list(chat))
    except MobilepackError as err:  # a template may refuse roles; both must
        return f"refused: {err.why}"
