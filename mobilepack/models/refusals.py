"""Why a folder is not a checkpoint that can be built, and what its owner can do about it."""

from __future__ import annotations

from pathlib import Path

from mobilepack.errors import MobilepackError, UsageError
from mobilepack.models.config import JsonObject, show

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def no_such_folder(source: str) -> MobilepackError:
    """Return the error for a source that is neither a folder nor a hub id."""
    return UsageError(
        "no-such-checkpoint",
        f"cannot open the checkpoint {source!r}",
        why="there is no such folder or file, and it is not a hub id of the form owner/name",
        next="give a GGUF file, the folder that holds config.json, or a hub id such as "
        "Qwen/Qwen3-0.6B",
    )


def not_a_folder(path: Path) -> MobilepackError:
    """Return the error for a source that is a file."""
    if any(path.match(pattern) for pattern in _PICKLES):
        return _pickle(path.parent, path.name)
    return UsageError(
        "not-a-folder",
        f"cannot open the checkpoint {path}",
        why="it is a file, and a checkpoint is a folder",
        next=f"give the folder: {path.parent}",
    )


def no_config(folder: Path) -> MobilepackError:
    """Return the error for a folder without config.json, by what it holds instead."""
    if (folder / "adapter_config.json").is_file():
        return adapter(folder)
    if (folder / "params.json").is_file():
        why = "it has params.json, so it is in Meta's or Mistral's own format"
        convert = "download the repository whose name ends in -hf, or convert it with transformers"
        return UsageError(
            "no-config", f"{folder} is not a Hugging Face checkpoint", why=why, next=convert
        )
    if pickle := _first(folder, _PICKLES):
        return _pickle(folder, pickle.name)
    return UsageError(
        "no-config",
        f"{folder} is not a Hugging Face checkpoint",
        why="it has no config.json",
        next="give the folder that holds config.json and model.safetensors",
    )


def no_weights(folder: Path) -> MobilepackError:
    """Return the error for a folder with a config but no model.safetensors, by what it holds."""
    if pickle := _first(folder, _PICKLES):
        return _pickle(folder, pickle.name)
    if gguf := _first(folder, ("*.gguf",)):
        return UsageError(
            "no-weights",
            f"{folder} has a config.json, but no weights that go with it",
            why="it has neither model.safetensors nor model.safetensors.index.json",
            next=f"to build the GGUF file, which needs no config.json, give it by name: {gguf}",
        )
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if others:
        return UsageError(
            "unnamed-weights",
            f"cannot tell which weights of {folder} to use",
            why=f"it has {', '.join(others[:4])}, but neither model.safetensors nor "
            "model.safetensors.index.json",
            next="rename the file to model.safetensors, or add the index of the shards",
        )
    return UsageError(
        "no-weights",
        f"{folder} has no weights",
        why="it has neither model.safetensors nor model.safetensors.index.json",
        next="download the checkpoint again, with its *.safetensors files",
    )


def adapter(folder: Path) -> MobilepackError:
    """Return the error for a folder with a LoRA or other PEFT adapter."""
    return UsageError(
        "adapter",
        f"{folder} holds an adapter, not a whole model",
        why="it has adapter_config.json, so its weights belong on top of another checkpoint's",
        next="merge it with peft (merge_and_unload, then save_pretrained) and give that folder",
    )


def check_config(config: JsonObject, file: Path) -> None:
    """Refuse configs of checkpoints whose weights are already quantised.

    Raises:
        UsageError: The config has a quantization_config or compression_config.
    """
    for key in ("quantization_config", "compression_config"):
        value = config.get(key)
        if value is None:
            continue
        method = value.get("quant_method") if isinstance(value, dict) else None
        raise UsageError(
            "quantised-checkpoint",
            f"cannot build from the quantised checkpoint {file.parent}",
            why=f"{file.name} has {key} with the method {show(method)}; "
            "quantising twice would lose accuracy unseen",
            next="give the original checkpoint (bf16, fp16 or fp32); mobilepack quantises it",
        )


def _pickle(folder: Path, name: str) -> MobilepackError:
    return UsageError(
        "pickle-refused",
        f"will not open {folder / name}",
        why="it is a pickle, and loading a pickle can run any code its author put into it",
        next="use a safetensors copy; if you trust the file, convert it: python -c "
        f'"from transformers import AutoModelForCausalLM as A; '
        f"A.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\"",
    )


def _first(folder: Path, patterns: tuple[str, ...]) -> Path | None:
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    # training_args.bin and optimizer states lie beside weights that may be safetensors.
    return next((path for path in found if path.name != "training_args.bin"), None)
