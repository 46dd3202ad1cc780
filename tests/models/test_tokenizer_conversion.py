"""Vocabularies without tokenizer.json, against transformers and tiktoken."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilepack.errors import UsageError
from mobilepack.models.tokenizer import Tokenizer, write_tokenizer
from mobilepack.models.tokenizer_conversion import GPT2, LLAMA3, QWEN, Cutting
from tests.models.checkpoints import quiet_transformers

CORPUS = (Path(__file__).parents[1] / "data" / "multilingual.txt").read_text("utf-8")
LINES = [*CORPUS.splitlines(), CORPUS, "", " ", "\n\n \t\n", "  leading and trailing  "]
texts = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(LINES)
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def trained(cutting: Cutting, size: int = 700) -> Any:
    """Train byte-level BPE on the corpus with a kind's way of cutting."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if cutting.pattern:
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(cutting.pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    if cutting.nfc:
        made.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(CORPUS.splitlines(), trainer)
    return made


def write_merges(folder: Path, cutting: Cutting, config: dict[str, Any]) -> None:
    trained(cutting).model.save(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
    vocab["<|endoftext|>"] = len(vocab)
    (folder / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def ranks_of(tokenizer: Any) -> dict[bytes, int]:
    """Return a byte-level vocabulary's bytes and ranks, which is what tiktoken stores."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    return {bytes(byte_of[c] for c in t): i for t, i in tokenizer.get_vocab().items()}


def write_ranks(path: Path, ranks: dict[bytes, int]) -> None:
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in ordered]
    path.write_bytes(b"".join(lines))


def tiktoken_encoding(cutting: Cutting, ranks: dict[bytes, int], special: dict[str, int]) -> Any:
    import tiktoken

    return tiktoken.Encoding(
        "test", pat_str=cutting.pattern or "", mergeable_ranks=ranks, special_tokens=special
    )


class TestMerges:
    @pytest.mark.parametrize(
        ("name", "config"),
        [
            ("GPT2Tokenizer", {}),
            ("CodeGenTokenizer", {}),
            ("GPT2Tokenizer", {"add_prefix_space": True}),
            ("GPT2Tokenizer", {"add_bos_token": True, "bos_token": "<|endoftext|>"}),
            ("Qwen2Tokenizer", {"bos_token": None}),
        ],
    )
    def test_ids_and_texts_equal_those_of_transformers(
        self, tmp_path: Path, name: str, config: dict[str, Any]
    ) -> None:
        import transformers

        cutting = QWEN if name == "Qwen2Tokenizer" else GPT2
        write_merges(tmp_path, cutting, {"tokenizer_class": name, **config})
        quiet_transformers()
        ours = Tokenizer.open(tmp_path)
        theirs = getattr(transformers, name).from_pretrained(tmp_path)

        @quick
        @given(text=texts)
        def check(text: str) -> None:
            ids = theirs(text).input_ids
            assert ours.encode(text) == ids
            assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)

        check()
        for line in LINES:
            assert ours.encode(line) == theirs(line).input_ids

    def test_the_model_type_decides_where_no_class_is_named(self, tmp_path: Path) -> None:
        write_merges(tmp_path, QWEN, {})
        plain = Tokenizer.open(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
        cut = Tokenizer.open(tmp_path)
        assert plain.encode("e\u0301 user\n\n\n") != cut.encode("e\u0301 user\n\n\n")
        assert cut.encode("e\u0301") == plain.encode("\u00e9")  # composed first, as Qwen2 does

    def test_a_class_without_a_rule_is_refused(self, tmp_path: Path) -> None:
        write_merges(tmp_path, GPT2, {"tokenizer_class": "RobertaTokenizer"})
        with pytest.raises(UsageError, match="RobertaTokenizer") as failure:
            Tokenizer.open(tmp_path)
        assert "Qwen2Tokenizer" in failure.value.why

    def test_a_package_carries_the_tokenizer_json_that_was_made(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.mkdir()
        target.mkdir()
        write_merges(source, GPT2, {"eos_token": "<|endoftext|>"})
        ours = Tokenizer.open(source)
        write_tokenizer(ours, source, target)
        packed = Tokenizer.open(target)
        assert packed.made is None
        assert sorted(path.name for path in target.iterdir()) == sorted(ours.files)
        assert set(ours.files) == {"tokenizer.json", "tokenizer_config.json"}
        assert packed.eos_ids == ours.eos_ids != ()
        for line in LINES:
            assert packed.encode(line) == ours.encode(line)


class TestRanks:
    @pytest.mark.parametrize("name", ["qwen.tiktoken", "tiktoken.model", "tokenizer.model"])
    def test_ids_equal_those_of_tiktoken(self, tmp_path: Path, name: str) -> None:
        import unicodedata

        cutting = QWEN if name == "qwen.tiktoken" else LLAMA3
        ranks = ranks_of(trained(cutting))
        write_ranks(tmp_path / name, ranks)
        ours = Tokenizer.open(tmp_path)
        special = {token: len(ranks) + i for i, token in enumerate(cutting.special)}
        theirs = tiktoken_encoding(cutting, ranks, special)

        @quick
        @given(text=texts)
        def check(text: str) -> None:
            composed = unicodedata.normalize("NFC", text) if cutting.nfc else text
            ids = theirs.encode(composed, allowed_special="all")
            assert ours.encode(text, add_bos=False) == ids
            assert ours.decode(ids) == composed

        check()
        for line in [*LINES, f"{cutting.special[0]}x{cutting.special[-1]}"]:
            composed = unicodedata.normalize("NFC", line) if cutting.nfc else line
            ids = theirs.encode(composed, allowed_special="all")
            assert ours.encode(line, add_bos=False) == ids

    def test_llama_3_begins_with_its_first_token(self, tmp_path: Path) -> None:
        ranks = ranks_of(trained(LLAMA3))
        write_ranks(tmp_path / "tokenizer.model", ranks)
        assert Tokenizer.open(tmp_path).encode("a")[0] == len(ranks)

    def test_named_tokens_replace_the_list(self, tmp_path: Path) -> None:
        ranks = ranks_of(trained(QWEN))
        write_ranks(tmp_path / "qwen.tiktoken", ranks)
        named = {str(len(ranks)): {"content": "<only>", "special": True}}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": named}))
        ours = Tokenizer.open(tmp_path)
        assert ours.encode("<only>") == [len(ranks)]
        assert ours.encode("<|im_start|>") != [len(ranks) + 1]

    @pytest.mark.parametrize("line", [b"not base64! 3", b"AA==", b"AA== x"])
    def test_a_broken_line_is_named(self, tmp_path: Path, line: bytes) -> None:
        (tmp_path / "qwen.tiktoken").write_bytes(b"AA== 0\n" + line)
        with pytest.raises(UsageError, match="line 2"):
            Tokenizer.open(tmp_path)


class TestTekken:
    def test_ids_equal_those_of_tiktoken_after_the_control_tokens(self, tmp_path: Path) -> None:
        ranks = ranks_of(trained(LLAMA3))
        write_tekken(tmp_path, ranks, size=len(ranks) + 25)
        ours, theirs = Tokenizer.open(tmp_path), tiktoken_encoding(LLAMA3, ranks, {})
        for line in LINES:
            assert ours.encode(line) == [1, *(25 + i for i in theirs.encode_ordinary(line))]
        assert ours.encode("<s>[INST]<SPECIAL_24>", add_bos=False) == [1, 3, 24]

    def test_entries_beyond_the_vocabulary_are_left_out(self, tmp_path: Path) -> None:
        ranks = ranks_of(trained(LLAMA3))
        write_tekken(tmp_path, ranks, size=25 + 400)
        ours = Tokenizer.open(tmp_path)
        assert ours.rows == 25 + 400
        assert max(ours.encode(CORPUS)) < 25 + 400

    @pytest.mark.parametrize("broken", [{}, {"config": {}, "vocab": []}, {"vocab": 3}])
    def test_a_broken_file_is_refused(self, tmp_path: Path, broken: dict[str, Any]) -> None:
        (tmp_path / "tekken.json").write_text(json.dumps(broken))
        with pytest.raises(UsageError, match=r"tekken\.json"):
            Tokenizer.open(tmp_path)


def write_tekken(folder: Path, ranks: dict[bytes, int], size: int) -> None:
    ordered = sorted(ranks, key=ranks.__getitem__)
    data = {
        "config": {
            "pattern": LLAMA3.pattern,
            "default_vocab_size": size,
            "default_num_special_tokens": 25,
        },
        "vocab": [
            {"rank": i, "token_bytes": base64.b64encode(t).decode()} for i, t in enumerate(ordered)
        ],
    }
    (folder / "tekken.json").write_text(json.dumps(data))


def test_a_vocabulary_file_of_rubbish_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("{")
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(UsageError, match=r"vocab\.json"):
        Tokenizer.open(tmp_path)


def test_tokenizer_json_wins(tmp_path: Path) -> None:
    write_merges(tmp_path, GPT2, {})
    made = Tokenizer.open(tmp_path).made
    assert made is not None
    (tmp_path / "tokenizer.json").write_text(made, "utf-8")
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "vocab.json")  # rubbish, never read
    assert Tokenizer.open(tmp_path).made is None
