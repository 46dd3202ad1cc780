"""A smaller vocabulary says the corpus with the same tokens, and the rest with smaller ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.errors import MissingError, UsageError
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.compression.vocabulary import (
    Vocabulary,
    check_round_trip,
    choose_vocabulary,
    rewrite,
)
from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.zoo import embedded_path
from mobilepack.models.zoo.corpus import calibration_text

CORPUS = "\n".join(calibration_text(12)) + "\n한국어 🙂 naïve\n"


def pruned(source: Path, target: Path, text: str, size: int) -> tuple[Vocabulary, Tokenizer]:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
    chosen = choose_vocabulary(target, text, size)
    rewrite(target, chosen)
    return chosen, Tokenizer.open(target)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Vocabulary, Tokenizer]:
    folder = tmp_path_factory.mktemp("vocabulary") / "embedded"
    return folder, *pruned(embedded_path(), folder, CORPUS, 2048)


Embedded = tuple[Path, Vocabulary, Tokenizer]


def test_the_corpus_has_the_same_tokens(embedded: Embedded) -> None:
    folder, chosen, tokenizer = embedded
    before = Tokenizer.open(embedded_path())
    check_round_trip(embedded_path(), folder, CORPUS, chosen)
    assert 256 < len(chosen.kept) < 1200 < chosen.size_before
    for line in CORPUS.splitlines():
        assert [chosen.kept[i] for i in tokenizer.encode(line)] == before.encode(line)


@given(st.text(max_size=40))
def test_any_text_survives(embedded: Embedded, text: str) -> None:
    _, chosen, tokenizer = embedded
    ids = tokenizer.encode(text, add_bos=False)
    assert all(0 <= index < len(chosen.kept) for index in ids)
    assert tokenizer.decode(ids) == text


def test_special_ids_and_the_chat_template_move_along(embedded: Embedded) -> None:
    folder, chosen, tokenizer = embedded
    new = chosen.new_id
    assert tokenizer.bos_id == new[1]
    assert tokenizer.eos_ids == (new[2],)
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] == len(chosen.kept)
    assert (config["bos_token_id"], config["eos_token_id"]) == (new[1], new[2])
    text = ChatTemplate.open(folder).render([ChatMessage("user", CORPUS.splitlines()[0])])
    before = Tokenizer.open(embedded_path()).encode(text, add_bos=False)
    assert [chosen.kept[i] for i in tokenizer.encode(text, add_bos=False)] == before


def _unigram(folder: Path) -> Path:
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁the", -3.0), ("▁fox", -4.0), ("▁foxes", -5.0)]
    pieces += [(character, -8.0) for character in "thefoxsab"] + [("xyz", -9.0)]
    library = Library(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    library.add_special_tokens(["<s>", "</s>"])
    folder.mkdir()
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 16, "vocab_size": 32}))
    return folder


def test_a_unigram_vocabulary_is_cut_too(tmp_path: Path) -> None:
    source = _unigram(tmp_path / "unigram")
    chosen, tokenizer = pruned(source, tmp_path / "cut", "the foxes", 32)
    check_round_trip(source, tmp_path / "cut", "the foxes", chosen)
    vocab = json.loads((tmp_path / "cut/tokenizer.json").read_text())["model"]["vocab"]
    names = [piece for piece, _ in vocab]
    assert {"<unk>", "▁the", "▁foxes"} <= set(names)
    assert not {"▁fox", "xyz"} & set(names)
    assert tokenizer.eos_ids == (len(chosen.kept) - 1,)


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no tokenizer"):
        choose_vocabulary(tmp_path, "text", 10)
    folder = _unigram(tmp_path / "words")
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"] = {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="WordLevel"):
        choose_vocabulary(folder, "text", 10)
