"""The app's own chat: its reader of tokenizer.json against the `tokenizers` library, dialogues."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.zoo import embedded_path
from mobilepack.testing import ToyModel
from tests.android_demo.conftest import Kotlin
from tests.models.checkpoints import quiet_transformers
from tests.models.test_tokenizer import train_sentencepiece
from tests.provision import packages

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[1] / "data"
CORPUS = (DATA / "multilingual.txt").read_text("utf-8")
ODD = [
    "", " ", "  ", "\n\n \t\n", "  leading and trailing  ", "don't DON'T it'S 12345 1 2",
    "a\u00a0b", "e\u0301 \u200d👩‍👩‍👧 \U0010ffff", "x\u3000y\u2028z\x85w\x1c",
    "<s>[INST] hi [/INST]",
    "<|user|>\nhi <|end|> \n<|assistant|>", "\ufeffﬁ ½ ①", "\u0e01\u0e33", "tab\there\r\nthere\r",
    "spaces       before", "日本語 中文 한국어", "\x00\x01", "=====!!!  ??", "a" * 300 + " " * 50,
]  # fmt: skip
LINES = [*CORPUS.splitlines(), CORPUS, *ODD]
Said = Callable[[str, Sequence[str]], list[tuple[list[int], str]]]


@pytest.fixture
def said(kotlin: Kotlin, core: Path, toy: Path, tmp_path: Path) -> Said:
    """Return what gives every text's ids, and the text that these stream to."""

    def ask(tokenizer: str, texts: Sequence[str]) -> list[tuple[list[int], str]]:
        path = tmp_path / "asked.json"
        path.write_text(tokenizer, "utf-8")
        fed = "".join(json.dumps(text) + "\n" for text in texts)
        done = kotlin.run("mobilepack.harness.Texts", [toy, core], path, fed=fed)
        assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
        lines = [line.split("\t", 1) for line in done.stdout.splitlines()]
        return [
            ([int(word) for word in ids.split()], bytes.fromhex(text).decode())
            for ids, text in lines
        ]

    return ask


def check(said: Said, tokenizer: str, texts: Sequence[str] = LINES, strip: str = "") -> None:
    """Check ids of every text, and that they stream to the text that the library decodes.

    Args:
        said: Asks the app's reader.
        tokenizer: A tokenizer.json.
        texts: What is encoded.
        strip: What the library takes off the beginning of a text, which a stream keeps.
    """
    import tokenizers

    theirs = tokenizers.Tokenizer.from_str(tokenizer)
    found = said(tokenizer, texts)
    assert len(found) == len(texts)
    for text, (ids, streamed) in zip(texts, found, strict=True):
        assert ids == theirs.encode(text, add_special_tokens=False).ids, repr(text)
        whole = theirs.decode(ids)
        assert streamed in (whole, strip + whole), repr(text)


def test_the_embedded_model_s(said: Said) -> None:
    check(said, (embedded_path() / "tokenizer.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("dashscope/resources/qwen.tiktoken", "qwen.tiktoken"),
        ("llama_models/llama3/tokenizer.model", "tokenizer.model"),
    ],
)
def test_the_published_vocabularies_of_qwen_and_llama_3(
    said: Said, tmp_path: Path, path: str, name: str
) -> None:
    """As packages carry them: 150,000 and 128,000 pieces, pieces whole before they are merged."""
    published = packages(DATA / "published_tokenizers" / "requirements.txt")
    shutil.copy(published / path, tmp_path / name)
    made = Tokenizer.open(tmp_path).made
    assert made is not None
    check(said, made)


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
O200K = (  # the shape of openai/tiktoken's o200k_base, which newer families cut by
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    "steps",
    [
        [BYTES],  # GPT-2
        [BYTES | {"add_prefix_space": True}],
        [{"type": "Digits", "individual_digits": True}, BYTES],  # SmolLM2
        [{"type": "Digits", "individual_digits": False}, BYTES],
        [{"type": "Split", "pattern": {"Regex": O200K}, "behavior": "Removed", "invert": True},
         BYTES | {"use_regex": False}],
        [{"type": "Split", "pattern": {"Regex": r"\d{1,3}|[^\S\r\n]+"}, "behavior": "Isolated"},
         BYTES | {"use_regex": False}],
    ],
)  # fmt: skip
def test_every_way_of_cutting_bytes(said: Said, steps: list[Any]) -> None:
    document = json.loads((embedded_path() / "tokenizer.json").read_text("utf-8"))
    for step in steps:
        if step["type"] == "Split":
            step.setdefault("invert", False)
    cutter = {"type": "Sequence", "pretokenizers": steps}
    check(said, json.dumps(document | {"pre_tokenizer": cutter}))


def llama(folder: Path, **change: Any) -> dict[str, Any]:
    """Return SentencePiece's byte pairs as transformers writes them to a tokenizer.json."""
    train_sentencepiece(folder)
    quiet_transformers()
    from transformers import LlamaTokenizer

    made = LlamaTokenizer.from_pretrained(folder)
    document: dict[str, Any] = json.loads(made.backend_tokenizer.to_str())
    return document | change


def test_sentencepiece_s_byte_pairs_with_bytes_for_what_they_lack(
    said: Said, tmp_path: Path
) -> None:
    document = llama(tmp_path)
    assert document["model"]["byte_fallback"]
    check(said, json.dumps(document), strip=" ")


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Prepend", "prepend": "▁"}


@pytest.mark.parametrize(
    ("normalizer", "cutter"),
    [
        ({"type": "Sequence", "normalizers": [PREPEND, REPLACE]}, None),  # Llama 2
        (REPLACE, {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                   "invert": False}),  # Gemma
        (None, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                "split": False}),
        (None, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                "split": True}),
        ({"type": "NFKC"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never",
                            "split": True}),
    ],
)  # fmt: skip
def test_every_way_of_writing_spaces(
    said: Said, tmp_path: Path, normalizer: Any, cutter: Any
) -> None:
    document = llama(tmp_path, normalizer=normalizer, pre_tokenizer=cutter)
    check(said, json.dumps(document), strip=" ")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": {"type": "Unigram", "vocab": []}}, "of byte pairs, this one is Unigram"),
        ({"normalizer": {"type": "Precompiled"}}, "its normalizer has a step Precompiled"),
        ({"pre_tokenizer": {"type": "BertPreTokenizer"}}, "its pre_tokenizer has a step BertPre"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated"}},
         "a pattern has \\w"),
    ],
)  # fmt: skip
def test_what_it_does_not_know_is_refused(
    change: Any, why: str, kotlin: Kotlin, core: Path, toy: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    document = json.loads((embedded_path() / "tokenizer.json").read_text("utf-8"))
    path.write_text(json.dumps(document | change), "utf-8")
    done = kotlin.run("mobilepack.harness.Texts", [toy, core], path)
    assert (done.returncode, done.stderr) == (1, "")
    assert why in done.stdout


def greedy_toy(cache: list[int], text: str, positions: int, stop: int) -> tuple[str, bytes]:
    """Answer a text as a dialogue must, with the toy in Python; the cache holds what was fed."""
    tokenizer = Tokenizer.open(embedded_path())
    fed = tokenizer.encode(text, add_bos=False)
    if len(cache) + len(fed) > positions:
        return "refused", b""
    cache += fed
    said: list[int] = []
    while True:
        model = ToyModel(61)
        logits = [model(np.array([i]), n) for n, i in enumerate(cache)][-1]
        said.append(int(np.argmax(logits)))
        if said[-1] == stop or len(cache) >= positions:
            break
        cache.append(said[-1])
    shown = said[:-1] if said[-1] == stop else said
    return str(len(said)), tokenizer.decode(shown, skip_special=True).encode()


@pytest.mark.parametrize(("stop", "positions", "end"), [(8, 200, "stopped"), (99, 60, "full")])
def test_a_dialogue_goes_on_where_it_was_until_it_is_forgotten_or_full(
    stop: int, positions: int, end: str, kotlin: Kotlin, core: Path, toy: Path
) -> None:
    """The static session under it: prompts in chunks of 40, masks, a cache that is used again."""
    long = CORPUS.splitlines()[0] * 4
    texts = ["hello", "and again", "", "hello", long, "one", "two", "three", "", long * 3]
    arguments = (embedded_path() / "tokenizer.json", positions, stop)
    fed = "".join(json.dumps(text) + "\n" for text in texts)
    done = kotlin.run("mobilepack.harness.Talks", [toy, core], *arguments, fed=fed)
    assert done.returncode == 0, done.stderr
    found = [line.split("\t") for line in done.stdout.splitlines()]
    cache: list[int] = []
    kinds = set()
    for text, (count, said) in zip(texts, found, strict=True):
        if not text:
            cache = []
            assert count == "0"
            continue
        expected, shown = greedy_toy(cache, text, positions, stop)
        assert count == expected, text
        if expected == "refused":
            assert f"{positions} positions".encode() in bytes.fromhex(said)
            kinds.add("refused")
        else:
            assert bytes.fromhex(said) == shown
            kinds.add("full" if len(cache) >= positions else "stopped")
    assert kinds == {"refused", end}
