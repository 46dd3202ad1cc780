"""Write a trained network as an ordinary Hugging Face checkpoint folder."""

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from mobilepack.models.zoo.train import data
from mobilepack.models.zoo.train.loop import Trained

CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('roles are system, user and assistant') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _config(trained: Trained) -> dict[str, object]:
    shape = trained.network.shape
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": data.BOS,
        "dtype": "bfloat16",
        "eos_token_id": data.END,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_key_value_heads,
        "pad_token_id": data.PAD,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }


def _tokenizer_config(trained: Trained) -> dict[str, object]:
    return {
        "added_tokens_decoder": {
            str(index): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for index, token in enumerate(data.SPECIAL)
        },
        "bos_token": data.SPECIAL[data.BOS],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": data.SPECIAL[data.END],
        "model_max_length": trained.network.shape.max_position_embeddings,
        "pad_token": data.SPECIAL[data.PAD],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _generation_config() -> dict[str, object]:
    ids = {"bos_token_id": data.BOS, "eos_token_id": data.END, "pad_token_id": data.PAD}
    return {"_from_model_config": True, **ids, "do_sample": False}


def write_folder(trained: Trained, folder: Path) -> None:
    """Write config, bf16 weights, tokenizer and generation defaults into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("config.json", _config(trained)),
        ("tokenizer_config.json", _tokenizer_config(trained)),
        ("generation_config.json", _generation_config()),
    ):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    trained.tokenizer.save(str(folder / "tokenizer.json"))
    state = trained.network.state_dict()
    weights = {name: value.to(torch.bfloat16).contiguous() for name, value in state.items()}
    path = folder / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes it for its owner alone
