"""The folder that ships: well formed, small enough, and as good as its model card says."""

import json
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors import safe_open
from tokenizers import Tokenizer

from mobilepack.models.zoo import embedded_path
from mobilepack.models.zoo.corpus import Message, held_out_text
from mobilepack.models.zoo.train.data import ASSISTANT, BOS, END, PAD, SPECIAL, encode
from mobilepack.models.zoo.train.network import Network, Shape

FOLDER = embedded_path()


def _json(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def test_the_folder_holds_what_it_must_and_at_most_16_megabytes() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {
        "LICENSE",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 16_000_000


def test_the_licence_and_the_data_statement_are_there() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    assert "mobilepack.models.zoo.corpus" in card
    assert "Apache License" in (FOLDER / "LICENSE").read_text(encoding="utf-8")


def test_the_weights_are_bf16_tied_and_shaped_as_the_config_says() -> None:
    config = _json("config.json")
    shape = Shape(**{name: config[name] for name in Shape.__dataclass_fields__})
    expected = {name: tuple(p.shape) for name, p in Network(shape).named_parameters()}
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        found = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118 - no mapping
        dtypes = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118 - no mapping
    assert found == expected
    assert dtypes == {"BF16"}
    assert config["tie_word_embeddings"] is True


def test_every_inner_size_divides_into_groups_of_32_and_one_does_not_into_128() -> None:
    config = _json("config.json")
    sizes = (config["hidden_size"], config["intermediate_size"])
    assert all(size % 32 == 0 for size in sizes)
    assert any(size % 128 for size in sizes)


def test_special_ids_agree_in_every_file(tokenizer: Tokenizer) -> None:
    for name in ("config.json", "generation_config.json"):
        config = _json(name)
        ids = (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"])
        assert ids == (BOS, END, PAD), name
    assert [tokenizer.id_to_token(i) for i in range(len(SPECIAL))] == list(SPECIAL)
    stated = _json("tokenizer_config.json")
    for key, token in (("bos_token", BOS), ("eos_token", END), ("pad_token", PAD)):
        assert stated[key] == SPECIAL[token]
    assert _json("config.json")["vocab_size"] == tokenizer.get_vocab_size()


def test_the_chat_template_renders_what_training_saw(tokenizer: Tokenizer) -> None:
    template = _json("tokenizer_config.json")["chat_template"]
    chat = (Message("system", "Answer briefly."), Message("user", "What is 7 + 5?"))
    rendered = (
        ImmutableSandboxedEnvironment()
        .from_string(template)
        .render(
            bos_token=SPECIAL[BOS],
            messages=[{"role": m.role, "content": m.content} for m in chat],
            add_generation_prompt=True,
        )
    )
    ids = tokenizer.encode(rendered, add_special_tokens=False).ids
    assert ids == [*encode(tokenizer, chat)[0], ASSISTANT]


@pytest.mark.parametrize(
    "text", ["Hello, Anna! 1234 + 5 = ?", "안녕하세요! 저는 포켓이에요.", "tab\tnew\nline ✓ é"]
)
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_every_digit_is_a_token_and_stories_take_few(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("2026", add_special_tokens=False).ids) == 4
    text = held_out_text(1)[0]
    assert len(text) / len(tokenizer.encode(text).ids) > 3


@pytest.mark.slow
def test_the_model_is_as_good_as_its_card_says_and_rounding_costs_something() -> None:
    from mobilepack.models.zoo.evaluate import measure

    found = measure(FOLDER)
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    fp32, int4 = found.reference, found.rounded
    assert f"{fp32.perplexity:.2f}" in card
    assert f"{fp32.tasks.right} of {fp32.tasks.asked}" in card
    assert fp32.tasks.share >= 0.8
    assert fp32.perplexity < found.unigram_perplexity / 20
    assert int4.perplexity > fp32.perplexity * 1.002  # measured: 1.0036
    assert int4.tasks.right < fp32.tasks.right
