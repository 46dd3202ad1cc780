"""Every family by model_type: the ones shipped here and those of installed plug-ins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import cast

from mobilepack.errors import UsageError, near_misses
from mobilepack.models.config import ConfigReader, JsonObject, show
from mobilepack.models.families.base import Family
from mobilepack.models.spec import DecoderSpec

# A module beside this one that defines FAMILY; adding a family adds its name.
BUILT_IN = (
    "bloom",
    "codegen",
    "cohere",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "granite",
    "granitemoe",
    "lfm2",
    "llama",
    "llava",
    "mamba2",
    "minicpm",
    "minicpm3",
    "ministral",
    "mistral",
    "mixtral",
    "mobilellm",
    "mpt",
    "nemotron",
    "olmo",
    "olmo2",
    "olmoe",
    "openelm",
    "openlm",
    "opt",
    "phi",
    "phi3",
    "phimoe",
    "qwen",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "recurrent_gemma",
    "smollm3",
    "stablelm",
    "starcoder2",
)
ENTRY_POINTS = "mobilepack.families"


def family_of(config: JsonObject, file: str = "config.json") -> Family:
    """Return the family that reads a config, by its `model_type`.

    Raises:
        UsageError: There is none; lists what is supported, or says that the model brings code.
    """
    families = all_families()
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in families:
        return families[model_type]
    # With auto_map and a known model_type the built-in architecture is used, as transformers
    # does without trust_remote_code.
    if "auto_map" in config:
        raise UsageError(
            "remote-code",
            f"cannot build the model type {show(model_type)}",
            why=f"{file} has auto_map: the model needs Python code that its checkpoint brings, "
            "and mobilepack never runs such code",
            next="choose a checkpoint of a supported family: " + ", ".join(sorted(families)),
        )
    raise UsageError(
        "unsupported-family",
        f"cannot build the model type {show(model_type)}",
        why=f"{file} has a model_type that no family reads; supported: "
        + ", ".join(sorted(families)),
        next=near_misses(str(model_type), list(families))
        + f"; or install a plug-in with an entry point in the group {ENTRY_POINTS!r}",
    )


def read_spec(
    config: JsonObject, generation_config: JsonObject, file: str = "config.json"
) -> DecoderSpec:
    """Return the decoder of a checkpoint, with the end ids of both its configs.

    transformers generates by generation_config.json where it names an end id; its ids and those
    of config.json are joined, because published checkpoints split them between the files. The
    family's default end id counts only if neither file names one.
    """
    spec = family_of(config, file).read(config, file)
    reader = ConfigReader(generation_config, "generation_config.json")
    extra, first = reader.token_ids("eos_token_id"), reader.token_ids("bos_token_id")
    reader.finish()
    own = spec.eos_ids if "eos_token_id" in config or not extra else ()
    bos = spec.bos_id if "bos_token_id" in config or not first else first[0]
    return replace(spec, eos_ids=tuple(dict.fromkeys(own + extra)), bos_id=bos)


@cache
def all_families() -> MappingProxyType[str, Family]:
    """Return every family by every model_type it reads."""
    package = __name__.rpartition(".")[0]
    built_in = [(name, import_module(f"{package}.{name}").FAMILY) for name in BUILT_IN]
    plugged = [(point.value, _load(point)) for point in entry_points(group=ENTRY_POINTS)]
    return register([*built_in, *plugged])


def register(origins: Iterable[tuple[str, Family]]) -> MappingProxyType[str, Family]:
    """Return families by model_type, given where each comes from; two may not share a name."""
    families: dict[str, Family] = {}
    owner: dict[str, str] = {}
    for origin, family in origins:
        for model_type in family.model_types:
            if model_type in families:
                raise UsageError(
                    "duplicate-family",
                    f"cannot tell which family reads the model type {model_type!r}",
                    why=f"both {owner[model_type]} and {origin} register it",
                    next="uninstall one of the two plug-ins",
                )
            families[model_type], owner[model_type] = family, origin
    return MappingProxyType(families)


def _load(point: EntryPoint) -> Family:
    try:
        return cast(Family, point.load())
    except (ImportError, AttributeError) as err:
        raise UsageError(
            "broken-plugin",
            f"cannot load the family plug-in {point.name!r}",
            why=f"{point.value}: {err}",
            next="update or uninstall the package that provides it",
        ) from err
