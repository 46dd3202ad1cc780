from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mobilepack.errors import MissingError, MobilepackError, UsageError
from mobilepack.models.chat import ChatMessage, ChatTemplate
from mobilepack.models.tokenizer import Tokenizer
from tests.models.checkpoints import edit_json, quiet_transformers, write_tokenizer
from tests.models.conftest import Made

TEXTS = [
    "",
    "the quick brown fox",
    "Grüße, 世界! naïve café 🙂",
    "a  b\t c\n\n\nd 12345 don't",
    "<|im_start|>user\nhi<|im_end|>\n",
    "e\u0301 \u200d👩‍👩‍👧",
]
texts = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(TEXTS)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["<s>", "</s>", ""]) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["content", "special", "1", "320", "360", "x"]), inner)
    ),
    max_leaves=5,
)
config_keys = st.sampled_from(
    ["bos_token", "eos_token", "unk_token", "add_bos_token", "legacy", "added_tokens_decoder"]
)
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def reference(folder: Path) -> Any:
    quiet_transformers()
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    return AutoTokenizer.from_pretrained(folder)


def train_sentencepiece(folder: Path, **options: Any) -> None:
    """Train a SentencePiece model with the settings of Llama 2's."""
    import sentencepiece

    corpus = ["the quick brown fox jumps over the lazy dog", "hello world, 123 tests", "Grüße café"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus * 20),
        model_writer=model,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"vocab_size": 360, **options},
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentencepiece")
    train_sentencepiece(folder)
    return folder


class TestHuggingFace:
    @pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
    def test_ids_and_texts_equal_those_of_transformers(self, made: Made, family: str) -> None:
        folder = made(family)
        ours, theirs = Tokenizer.open(folder), reference(folder)
        for text in TEXTS:
            ids = theirs(text).input_ids
            assert ours.encode(text) == ids
            assert ours.decode(ids) == theirs.decode(ids) == text
            assert ours.decode(ids, skip_special=True) == theirs.decode(
                ids, skip_special_tokens=True
            )

    def test_any_text_survives_and_has_the_ids_of_transformers(self, made: Made) -> None:
        ours, theirs = Tokenizer.open(made()), reference(made())

        @quick
        @given(text=texts)
        def check(text: str) -> None:
            ids = ours.encode(text)
            assert ids == theirs(text).input_ids
            assert ours.decode(ids) == text

        check()

    def test_a_qwen_tokenizer_equals_transformers_own_class(self, tmp_path: Path) -> None:
        write_tokenizer(tmp_path)
        model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
        quiet_transformers()
        from transformers import Qwen2Tokenizer

        made = Qwen2Tokenizer(model["vocab"], [tuple(merge) for merge in model["merges"]])
        made.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
        ours, theirs = Tokenizer.open(tmp_path), reference(tmp_path)
        assert type(theirs).__name__ == "Qwen2Tokenizer"
        for text in TEXTS:
            assert ours.encode(text) == theirs(text).input_ids

    def test_a_post_processor_adds_the_first_id_as_in_llama_3(self, copied: Made) -> None:
        folder = copied()
        edit_json(
            folder / "tokenizer.json",
            post_processor={
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {
                    "<|endoftext|>": {
                        "id": "<|endoftext|>",
                        "ids": [0],
                        "tokens": ["<|endoftext|>"],
                    }
                },
            },
        )
        ours, theirs = Tokenizer.open(folder), reference(folder)
        assert ours.encode("the fox") == theirs("the fox").input_ids
        assert ours.encode("the fox")[0] == 0
        plain = theirs("the fox", add_special_tokens=False).input_ids
        assert ours.encode("the fox", add_bos=False) == plain
        assert ours.encode("the fox", add_bos=True) == [0, *plain]

    @pytest.mark.parametrize(
        "flags",
        [
            {"add_bos_token": True},
            {"add_bos_token": False},
            {"add_eos_token": True},
            {"add_bos_token": True, "add_eos_token": True},
        ],
    )
    def test_flags_beside_tokenizer_json_do_nothing_as_in_transformers(
        self, copied: Made, flags: dict[str, bool]
    ) -> None:
        folder = copied()
        edit_json(folder / "tokenizer_config.json", **flags)
        ours, theirs = Tokenizer.open(folder), reference(folder)
        assert ours.encode("the fox") == theirs("the fox").input_ids

    def test_the_first_id_is_never_doubled(self, made: Made) -> None:
        tokenizer = Tokenizer.open(made())
        assert tokenizer.encode("<|endoftext|>the", add_bos=True).count(0) == 1

    def test_a_length_limit_in_the_file_cuts_no_prompt(self, copied: Made) -> None:
        folder = copied()
        limit = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
        edit_json(folder / "tokenizer.json", truncation=limit)
        assert len(Tokenizer.open(folder).encode("the fox " * 10)) > 4

    def test_tokens_that_only_the_config_names_are_added(self, copied: Made) -> None:
        folder = copied()
        added = {"320": {"content": "<extra>", "special": True}}
        edit_json(folder / "tokenizer_config.json", added_tokens_decoder=added)
        ours, theirs = Tokenizer.open(folder), reference(folder)
        assert ours.encode("a<extra>b") == theirs("a<extra>b").input_ids
        assert 320 in ours.encode("a<extra>b")

    def test_files_that_disagree_about_an_id_are_refused(self, copied: Made) -> None:
        folder = copied()
        added = {"7": {"content": "<|im_end|>", "special": True}}
        edit_json(folder / "tokenizer_config.json", added_tokens_decoder=added)
        with pytest.raises(UsageError, match="has id 2 there, 7 in tokenizer_config") as failure:
            Tokenizer.open(folder)
        assert failure.value.code == "invalid-tokenizer"

    def test_the_manifest_learns_kind_files_and_ids(self, copied: Made) -> None:
        folder = copied(eos_token_id=[0, 2])
        edit_json(folder / "generation_config.json", eos_token_id=[5])
        info = Tokenizer.open(folder).info()
        assert info.kind == "huggingface"
        assert info.files == ("tokenizer.json", "tokenizer_config.json")
        assert info.bos_id == 0
        assert info.eos_ids == (0, 2, 5)
        assert info.chat_template

    @pytest.mark.parametrize("decoder", [None, {}])
    def test_the_special_tokens_map_counts_as_in_transformers(
        self, copied: Made, decoder: dict[str, Any] | None
    ) -> None:
        folder = copied()
        if decoder is not None:
            edit_json(folder / "tokenizer_config.json", added_tokens_decoder=decoder)
        (folder / "special_tokens_map.json").write_text('{"bos_token": "<|im_start|>"}')
        assert Tokenizer.open(folder).bos_id == reference(folder).bos_token_id

    def test_a_model_without_a_first_token_has_none_to_add(self, copied: Made) -> None:
        folder = copied(bos_token_id=None)
        edit_json(folder / "tokenizer_config.json", bos_token=None)
        edit_json(folder / "generation_config.json", bos_token_id=...)
        tokenizer = Tokenizer.open(folder)
        assert tokenizer.bos_id is None
        with pytest.raises(UsageError, match="has none"):
            tokenizer.encode("x", add_bos=True)


class TestSentencePiece:
    @pytest.mark.parametrize(
        "config",
        [
            {},
            {"legacy": False, "add_bos_token": True},
            {"legacy": True, "add_bos_token": True},
            {"add_bos_token": True, "add_eos_token": True},
            {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"}},
        ],
    )
    def test_ids_and_texts_equal_those_of_transformers(
        self, trained: Path, tmp_path: Path, config: dict[str, Any]
    ) -> None:
        folder = Path(shutil.copytree(trained, tmp_path / "sp"))
        data = {"tokenizer_class": "LlamaTokenizer", **config}
        (folder / "tokenizer_config.json").write_text(json.dumps(data))
        ours, theirs = Tokenizer.open(folder), reference(folder)
        for text in [*TEXTS, "hello", "<s>[INST] hello", "x</s>", "a </s>b<s>c", "日本語 hello"]:
            ids = theirs(text).input_ids
            assert ours.encode(text) == ids
            assert ours.decode(ids) == theirs.decode(ids)
            assert ours.decode(ids, skip_special=True) == theirs.decode(
                ids, skip_special_tokens=True
            )

    def test_any_text_has_the_ids_of_the_sentencepiece_library(self, trained: Path) -> None:
        import sentencepiece

        library = sentencepiece.SentencePieceProcessor(model_file=str(trained / "tokenizer.model"))
        tokenizer = Tokenizer.open(trained)

        @quick
        @given(text=texts.filter(lambda text: "\0" not in text and "<" not in text))
        @example(text=" leading space")
        @example(text="▁▁")
        def check(text: str) -> None:
            assert tokenizer.encode(text) == library.encode(text)
            assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")

        check()

    def test_a_json_made_of_the_model_gives_the_same_ids(
        self, trained: Path, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(trained, tmp_path / "sp"))
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
        reference(folder).save_pretrained(tmp_path)
        assert (tmp_path / "tokenizer.json").is_file()
        ours, theirs = Tokenizer.open(tmp_path), Tokenizer.open(trained)
        assert ours.info().kind == "huggingface"
        for text in TEXTS:
            assert ours.encode(text) == theirs.encode(text)
            assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))

    def test_added_tokens_are_cut_out_and_may_swallow_spaces(
        self, trained: Path, tmp_path: Path
    ) -> None:
        folder = Path(shutil.copytree(trained, tmp_path / "sp"))
        size = Tokenizer.open(folder).rows
        added = {
            str(size): {"content": "<|end|>", "special": True, "rstrip": True, "lstrip": True},
            str(size + 1): {"content": "<|end|>x", "special": False},
        }
        (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
        tokenizer = Tokenizer.open(folder)
        hello = tokenizer.encode("hello")
        assert tokenizer.encode("hello  <|end|> \n") == [*hello, size]
        assert tokenizer.encode("hello<|end|>x") == [*hello, size + 1]
        assert tokenizer.decode([*hello, size, size + 1], skip_special=True) == "hello<|end|>x"

    def test_llama_s_special_tokens_are_known_without_a_config(self, trained: Path) -> None:
        info = Tokenizer.open(trained).info()
        assert (info.kind, info.bos_id, info.eos_ids) == ("sentencepiece", 1, (2,))
        assert info.files == ("tokenizer.model",)

    def test_ids_beyond_the_vocabulary_are_left_out(self, trained: Path) -> None:
        tokenizer = Tokenizer.open(trained)
        assert tokenizer.decode([*tokenizer.encode("hello"), 99_999]) == "hello"


class TestStream:
    @pytest.fixture(params=["huggingface", "sentencepiece"])
    def tokenizer(self, request: pytest.FixtureRequest, made: Made, trained: Path) -> Tokenizer:
        return Tokenizer.open(made() if request.param == "huggingface" else trained)

    def test_the_pieces_add_up_to_the_text_and_are_whole_characters(
        self, tokenizer: Tokenizer
    ) -> None:
        @quick
        @given(text=texts.filter(lambda text: "<" not in text and "▁" not in text))
        def check(text: str) -> None:
            stream = tokenizer.stream()
            pieces = [stream.push(index) for index in tokenizer.encode(text, add_bos=False)]
            last = stream.finish()
            assert "".join(pieces) + last == text
            assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)

        check()

    def test_any_ids_stream_to_what_they_decode_to(self, made: Made) -> None:
        tokenizer = Tokenizer.open(made())

        @quick
        @given(ids=st.lists(st.integers(3, 319), max_size=20))
        def check(ids: list[int]) -> None:
            stream = tokenizer.stream()
            text = "".join([*map(stream.push, ids), stream.finish()])
            assert text == tokenizer.decode(ids)

        check()

    def test_a_character_over_several_tokens_comes_at_once(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer.encode("🙂", add_bos=False)
        stream = tokenizer.stream()
        pieces = [stream.push(index) for index in ids]
        assert [piece for piece in pieces if piece] == ["🙂"]
        assert pieces[-1] == "🙂"
        assert stream.finish() == ""

    def test_a_character_that_is_never_finished_is_replaced_at_the_end(
        self, tokenizer: Tokenizer
    ) -> None:
        ids = tokenizer.encode("🙂", add_bos=False)[:-1]
        stream = tokenizer.stream()
        assert "".join(map(stream.push, ids)) == ""
        assert set(stream.finish()) == {"\ufffd"}
        assert stream.finish() == ""

    def test_special_tokens_are_left_out_unless_wanted(self, made: Made) -> None:
        tokenizer = Tokenizer.open(made())
        ids = tokenizer.encode("a<|im_end|>b")
        hidden, shown = tokenizer.stream(), tokenizer.stream(skip_special=False)
        assert "".join(map(hidden.push, ids)) == "ab"
        assert "".join(map(shown.push, ids)) == "a<|im_end|>b"

    def test_a_word_after_a_prompt_keeps_its_space(self, trained: Path) -> None:
        tokenizer = Tokenizer.open(trained)
        prompt, both = tokenizer.encode("hello"), tokenizer.encode("hello world")
        stream = tokenizer.stream(after=prompt)
        assert "".join(map(stream.push, both[len(prompt) :])) == " world"


class TestErrors:
    @pytest.mark.parametrize("found", [(), ("vocab.json",), ("merges.txt",), ("x.tiktoken",)])
    def test_a_folder_without_a_tokenizer_says_how_to_get_one(
        self, tmp_path: Path, found: tuple[str, ...]
    ) -> None:
        for name in found:
            (tmp_path / name).write_text("")
        with pytest.raises(MissingError) as failure:
            Tokenizer.open(tmp_path)
        assert failure.value.code == "no-tokenizer"
        assert all(name in failure.value.why for name in found)
        assert "save_pretrained" in failure.value.next

    @pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
    @pytest.mark.parametrize(
        "content", [b"", b"{}", b"\xff\x00garbage", b"version https://git-lfs"]
    )
    def test_a_broken_vocabulary_file_is_one_clear_error(
        self, tmp_path: Path, name: str, content: bytes
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError) as failure:
            Tokenizer.open(tmp_path)
        assert failure.value.code == "invalid-tokenizer"
        assert name in failure.value.what
        assert failure.value.why

    def test_a_broken_config_is_named(self, copied: Made) -> None:
        folder = copied()
        edit_json(folder / "tokenizer_config.json", add_bos_token="yes")
        with pytest.raises(UsageError, match="add_bos_token"):
            Tokenizer.open(folder)
        (folder / "tokenizer_config.json").write_text("{")
        with pytest.raises(UsageError, match=r"tokenizer_config\.json"):
            Tokenizer.open(folder)

    @pytest.mark.parametrize("kind", ["huggingface", "sentencepiece"])
    def test_arbitrary_configs_raise_nothing_but_our_errors(
        self, made: Made, trained: Path, tmp_path: Path, kind: str
    ) -> None:
        folder = Path(shutil.copytree(made() if kind == "huggingface" else trained, tmp_path / "t"))

        @quick
        @given(
            config=st.dictionaries(config_keys, json_values, max_size=4),
            named=st.dictionaries(config_keys, json_values, max_size=2),
            added=st.dictionaries(st.text(max_size=3), json_values, max_size=2),
        )
        def check(config: Any, named: Any, added: Any) -> None:
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            (folder / "special_tokens_map.json").write_text(json.dumps(named))
            (folder / "added_tokens.json").write_text(json.dumps(added))
            with contextlib.suppress(MobilepackError):
                tokenizer = Tokenizer.open(folder)
                tokenizer.info()
                stream = tokenizer.stream()
                "".join([*map(stream.push, tokenizer.encode("<s>the 🙂")), stream.finish()])
                ChatTemplate.open(folder).render([ChatMessage("user", "x")])

        check()

    def test_damaged_vocabulary_files_raise_nothing_but_our_errors(
        self, made: Made, trained: Path, tmp_path: Path
    ) -> None:
        sources = {"tokenizer.json": made(), "tokenizer.model": trained}

        @quick
        @given(
            name=st.sampled_from(sorted(sources)), place=st.floats(0, 1), new=st.binary(max_size=3)
        )
        def check(name: str, place: float, new: bytes) -> None:
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            raw = (sources[name] / name).read_bytes()
            start = int(place * len(raw))
            (folder / name).write_bytes(raw[:start] + new + raw[start + len(new) + 1 :])
            with contextlib.suppress(MobilepackError):
                tokenizer = Tokenizer.open(folder)
                tokenizer.decode(tokenizer.encode("the 🙂"))

        check()

    def test_text_that_is_no_unicode_is_a_usage_error(self, made: Made) -> None:
        with pytest.raises(UsageError, match="character 1"):
            Tokenizer.open(made()).encode("a\udcff")
