"""What an app on a phone needs of a package, under the names by which the app finds it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mobilepack.contract.package import MANIFEST, Package
from mobilepack.errors import UsageError
from mobilepack.harness.android.app import check_callable
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.tokenizer import Tokenizer

PROMPT = "prompt.txt"
"""How a message becomes the text that the model sees; `{message}` stands for the message."""

BOS_MARK = "{bos}"
"""At its beginning: the app has the runner put the token in front that begins a text."""

_MESSAGE = "{message}"
_JSON = "tokenizer.json"
_SENTENCEPIECE = "tokenizer.model"
_TOKENIZERS = (_JSON, _SENTENCEPIECE)  # what ExecuTorch's LLM runners read
_ANDROID = ("xnnpack", "qnn")


@contextlib.contextmanager
def android_files(package: Package) -> Iterator[Mapping[str, Path]]:
    """Give the files that android_demo reads, by their path below its package folder.

    Raises:
        UsageError: The package is for Apple's devices, its program is one that the app cannot
            call, or its chat template is broken.
    """
    backend = package.manifest.plan.backend
    if backend not in _ANDROID:
        raise UsageError(
            "not-for-android",
            f"{package.root} does not run on Android",
            why=f"its program is for {backend}",
            next="build one that does: mobilepack build MODEL --target xnnpack",
        )
    check_callable(package.root)
    files = {"model.pte": package.phone_program}
    files |= {name: package.root / name for name in _TOKENIZERS if package.lists(name)}
    files[MANIFEST] = package.root / MANIFEST
    with tempfile.TemporaryDirectory(prefix="mobilepack-app-") as folder:
        prompt = prompt_template(package.root, mark=BOS_MARK)
        if prompt is not None:
            files[PROMPT] = Path(folder) / PROMPT
            files[PROMPT].write_text(prompt, "utf-8")
        yield files


def prompt_template(package: Path, *, mark: str = "") -> str | None:
    """Return a first turn of the package's chat template around `{message}`.

    Without a template it is the message behind the token that the tokenizer puts in front of plain
    text, which ExecuTorch's LLM runners do not add; None where there is none of these.

    Args:
        package: Its folder.
        mark: What an app reads as the token that begins a text, where the text of the token would
            not be read as one: SentencePiece reads no special token out of a text.

    Raises:
        UsageError: The template is broken, or changes the message that it is given.
    """
    template = ChatTemplate.open(package)
    if template.plain:
        return _behind_bos(package, mark)
    text = template.render([ChatMessage("user", _MESSAGE)])
    if _MESSAGE not in text:
        raise UsageError(
            "chat-template",
            "the package's chat template cannot be given to an app",
            why="it does not write the user's message as it is",
            next=f"write {PROMPT} beside model.pte by hand, with {_MESSAGE} for the message",
        )
    return _marked(package, text, mark)


def _behind_bos(package: Path, mark: str) -> str | None:
    if not any((package / name).is_file() for name in _TOKENIZERS):
        return None
    tokenizer = Tokenizer.open(package)
    bos = tokenizer.bos_id
    if bos is None or tokenizer.encode(_MESSAGE)[:1] != [bos]:
        return None
    if (package / _JSON).is_file():
        return tokenizer.decode([bos]) + _MESSAGE
    return mark + _MESSAGE if mark else None


def _marked(package: Path, text: str, mark: str) -> str:
    """Return a text whose first token is marked where it would not be read as one."""
    if not mark or (package / _JSON).is_file() or not (package / _SENTENCEPIECE).is_file():
        return text
    bos = Tokenizer.open(package).special.get("bos_token")
    return mark + text.removeprefix(bos) if bos and text.startswith(bos) else text
