"""The vocabulary inside a GGUF file gives the ids of the tokenizer that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from mobilepack.errors import UsageError
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.gguf.pretokenizers import CUTS, pre_tokenizer
from mobilepack.models.gguf.tokenizer import write_tokenizer
from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.zoo import embedded_path
from mobilepack.models.zoo.corpus import held_out_text
from tests.models.gguf.vocabulary import embedded

TEXT = (Path(__file__).parents[2] / "data" / "multilingual.txt").read_text("utf-8")
TALK = "<|user|>\nHi there<|end|>\n<|assistant|>\n"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def made(folder: Path, **keys: Any) -> Tokenizer:
    """Write a tokenizer's files of these `tokenizer.ggml.` keys and open them."""
    metadata = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    if template := metadata.pop("tokenizer.ggml.chat_template", None):
        metadata["tokenizer.chat_template"] = template
    write_tokenizer(Path("x.gguf"), metadata, folder)
    return Tokenizer.open(folder)


@pytest.mark.parametrize("text", [TEXT, TALK, " a", "", *held_out_text(3)])
def test_byte_level_ids_are_those_of_the_original(tmp_path: Path, text: str) -> None:
    ours, theirs = made(tmp_path, **embedded()), Tokenizer.open(embedded_path())
    for add_bos in (None, False, True):
        assert ours.encode(text, add_bos=add_bos) == theirs.encode(text, add_bos=add_bos)
    ids = theirs.encode(text)
    for skip in (False, True):
        assert ours.decode(ids, skip_special=skip) == theirs.decode(ids, skip_special=skip)
    assert ours.bos_id == theirs.bos_id == 1
    assert ours.info().kind == "huggingface"


def test_the_chat_template_comes_along(tmp_path: Path) -> None:
    made(tmp_path, **embedded())
    talk = [ChatMessage("user", "Hi")]
    wanted = ChatTemplate.open(embedded_path()).render(talk)
    assert ChatTemplate.open(tmp_path).render(talk) == wanted


def test_user_defined_tokens_are_cut_out_and_unused_ones_are_never_made(tmp_path: Path) -> None:
    keys = embedded()
    keys["tokens"] += ["  two spaces  ", "[PAD2049]"]
    keys["token_type"] += [USER_DEFINED, UNUSED]
    found = made(tmp_path, **keys)
    count = len(keys["tokens"])
    assert count - 2 in found.encode("x  two spaces  y")
    assert found.decode([count - 2], skip_special=True) == "  two spaces  "
    assert found.decode([count - 1]) == ""
    assert found.rows == count - 1


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SentencePiece model trained here, with a user-defined run of spaces."""
    folder = tmp_path_factory.mktemp("spm")
    (folder / "text.txt").write_text("\n".join(held_out_text(600)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "spm"),
        vocab_size=700,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["▁▁▁"],
        control_symbols=["<|user|>", "<|end|>"],
        minloglevel=2,
    )
    return folder / "spm.model"


def sentencepiece_keys(spm: Path) -> dict[str, Any]:
    """Return what llama.cpp's converter writes of a SentencePiece model."""
    known = sentencepiece.SentencePieceProcessor()
    known.LoadFromFile(str(spm))
    count = known.GetPieceSize()
    kinds = []
    for index in range(count):
        tests = (
            (UNKNOWN, known.IsUnknown),
            (CONTROL, known.IsControl),
            (UNUSED, known.IsUnused),
            (BYTE, known.IsByte),
        )
        kinds.append(next((kind for kind, test in tests if test(index)), NORMAL))
    tokens = [known.IdToPiece(index) for index in range(count)]
    spaces = tokens.index("▁▁▁")
    tokens[spaces], kinds[spaces] = "   ", USER_DEFINED
    return {
        "model": "llama",
        "pre": "default",
        "tokens": [*tokens, f"[PAD{count}]"],
        "scores": [*(known.GetScore(index) for index in range(count)), -10000.0],
        "token_type": [*kinds, UNUSED],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }


@pytest.mark.parametrize("text", [TEXT, "<|user|>Hi<|end|>   x", " a", "é\u0000🙂"])
def test_sentencepiece_ids_are_those_of_the_original(tmp_path: Path, spm: Path, text: str) -> None:
    theirs = tmp_path / "original"
    theirs.mkdir()
    (theirs / "tokenizer.model").write_bytes(spm.read_bytes())
    (theirs / "tokenizer_config.json").write_text('{"add_bos_token": true, "legacy": false}')
    wanted, found = Tokenizer.open(theirs), made(tmp_path, **sentencepiece_keys(spm))
    assert found.encode(text) == wanted.encode(text)
    ids = wanted.encode(text, add_bos=False)
    assert found.encode(text, add_bos=False) == ids
    assert found.decode(ids) == wanted.decode(ids)
    assert found.info().kind == "sentencepiece"
    assert (found.bos_id, found.eos_ids) == (1, (2,))


def test_a_model_without_a_space_in_front_stays_without(tmp_path: Path, spm: Path) -> None:
    found = made(tmp_path, **sentencepiece_keys(spm), add_space_prefix=False)
    known = sentencepiece.SentencePieceProcessor()
    known.LoadFromFile(str(spm))
    (tmp_path / "prefixed").mkdir()
    prefixed = made(tmp_path / "prefixed", **sentencepiece_keys(spm))
    assert found.encode("the", add_bos=False) != prefixed.encode("the", add_bos=False)
    assert found.encode(" the", add_bos=False) == prefixed.encode("the", add_bos=False)
    assert found.decode(found.encode(" the", add_bos=False)) == " the"


@pytest.mark.parametrize("name", sorted(CUTS))
def test_every_way_of_cutting_loses_nothing(name: str) -> None:
    pieces = pre_tokenizer(CUTS[name]).pre_tokenize_str(TEXT)
    # Byte-level text has one character for every byte.
    assert len("".join(piece for piece, _ in pieces)) == len(TEXT.encode())


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"model": "t5"}, "'t5'"),
    "no cutting": ({"pre": None}, "tokenizer.ggml.pre is missing"),
    "unknown cutting": ({"pre": "qwen9"}, "did you mean 'qwen2'"),
    "no tokens": ({"tokens": []}, "no tokenizer.ggml.tokens"),
    "numbers for tokens": ({"tokens": [1, 2]}, "not a list of texts"),
    "few kinds": ({"token_type": [1]}, "one per token"),
    "a token twice": ({"tokens": ["a"] * 2055}, "twice"),
    "a merge of one": ({"merges": ["ab"]}, "no space"),
    "a foreign merge": ({"merges": ["zzzz qqqq"]}, "zzzz"),
    "a bos beyond": ({"bos_token_id": 99999}, "bos_token_id is 99999"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_vocabulary_that_cannot_be_read_is_refused(tmp_path: Path, case: str) -> None:
    changes, part = BROKEN[case]
    keys = embedded()
    if case == "a token twice":
        changes = {"tokens": ["a"] * len(keys["tokens"])}
    with pytest.raises(UsageError) as caught:
        made(tmp_path, **{k: v for k, v in {**keys, **changes}.items() if v is not None})
    assert caught.value.code == "gguf-tokenizer"
    assert part in caught.value.why


def test_a_file_without_a_vocabulary_writes_none(tmp_path: Path) -> None:
    write_tokenizer(Path("x.gguf"), {"tokenizer.ggml.model": "no_vocab"}, tmp_path)
    assert not list(tmp_path.iterdir())
