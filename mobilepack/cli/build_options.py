"""The options that decide a package, of `build` and `plan`, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mobilepack.cli.options import (
    DEFAULT_OUT,
    DEFAULT_TARGET,
    F,
    Named,
    all_of,
    model_argument,
    one_model,
    source_options,
)

if TYPE_CHECKING:
    from mobilepack.commands.build import BuildOptions

# Copies of the closed sets in contract/manifest.py, which is too slow to import for a help page; a
# test compares them.
LINEAR = ("8da4w", "fp32", "16a4w", "16a8w", "fp16", "8w", "4w", "4p")
GROUP_SIZES = ("8", "16", "32", "64", "128")
EMBEDDING = ("4w", "8w", "fp32", "16w", "fp16")
KV_CACHE = ("fp32", "fp16", "int8")
LOWERING = ("fast", "reference")
CALIBRATION = ("gptq", "awq", "hqq")


def recipe_options(function: F) -> F:
    """Add the options that decide how weights, embedding and KV cache are stored."""
    options = (
        click.option(
            "--recipe",
            "--qlinear",
            "linear",
            type=Named(LINEAR),
            help="Linear layers: 8da4w (int8 activations, int4 weights in groups) or fp32 for"
            " xnnpack; 16a4w, 16a8w (16-bit activations, int4 or int8 weights) or fp16 for qnn;"
            " 8w, 4w (int8 or int4 weights), 4p (tables of 16 values) or fp16 for coreml."
            " Default: the target's.",
        ),
        click.option(
            "--group-size",
            type=Named(GROUP_SIZES),
            help="Weights of a row that share one scale; with 4p: rows that share one table, 8 or"
            " 16. Default: the target's.",
        ),
        click.option(
            "--qembedding",
            "embedding",
            type=Named(EMBEDDING),
            help="Embedding table: 4w (int4), 8w (int8) or fp32 for xnnpack; 16w or fp16 for qnn;"
            " 8w or fp16 for coreml. Default: the target's, fp32 with --recipe fp32.",
        ),
        click.option(
            "--kv-cache",
            type=Named(KV_CACHE),
            help="Element type of the KV cache. Default: the target's.",
        ),
    )
    return all_of(function, options)


def shape_options(function: F) -> F:
    """Add the options that decide how long sequences get."""
    options = (
        click.option(
            "--max-seq-len",
            type=click.IntRange(min=2),
            metavar="TOKENS",
            help="Positions of the KV cache. Default: the target's, at most the model's.",
        ),
        click.option(
            "--prefill-chunk",
            type=click.IntRange(min=1),
            metavar="TOKENS",
            help="Longest run of tokens in one call. Default: the target's.",
        ),
    )
    return all_of(function, options)


def target_option(function: F) -> F:
    """Add the repeatable `--target` and what belongs to the target of a SoC or of a system."""
    coreml = (
        click.option(
            "--ios",
            type=click.IntRange(min=1),
            metavar="VERSION",
            help="Least version of iOS, for coreml. Default: the target's.",
        ),
        click.option(
            "--states",
            is_flag=True,
            help="Keep keys and values in the program's states, for coreml-mlpackage from iOS 18"
            " on. Default: they are inputs and outputs, which the Neural Engine prefers.",
        ),
        click.option(
            "--weight-limit-mb",
            type=click.IntRange(min=1),
            metavar="MB",
            help="Most weights of one Core ML program; a larger model is cut into several."
            " Default: what an iPhone loads.",
        ),
    )
    function = all_of(function, coreml)
    function = click.option(
        "--qnn-sdk",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="FOLDER",
        help="QAIRT SDK to use for qnn. Default: $QNN_SDK_ROOT, else the libraries of"
        " mobilepack[qnn].",
    )(function)
    function = click.option(
        "--soc-model",
        metavar="NAME",
        help="SoC to compile for, for example SM8750 (`getprop ro.soc.model`). Default: the"
        " attached phone's, else the target's.",
    )(function)
    return click.option(
        "--target",
        "targets",
        multiple=True,
        metavar="NAME",
        help="Target to build for, or the path of a target's .toml; may be given several times."
        f" Default: {DEFAULT_TARGET}.",
    )(function)


def build_options(function: F) -> F:
    """Add everything that decides a package, for `build` and `plan`."""
    for add in (source_options, lowering_option, compression_options, shape_options):
        function = add(function)
    for add in (recipe_options, target_option):
        function = add(function)
    return model_argument(function)


def compression_options(function: F) -> F:
    """Add the options that change the weights before they are lowered."""
    text_file = click.Path(dir_okay=False, path_type=Path)
    options = (
        click.option(
            "--calibrate",
            type=Named(CALIBRATION),
            help="Choose 4-bit weights by what the model sees (gptq, awq) or by their errors alone"
            " (hqq). Default: round to nearest.",
        ),
        click.option(
            "--calib",
            type=text_file,
            metavar="FILE",
            help="Text that calibration and pruning look at. Default: the embedded corpus.",
        ),
        click.option(
            "--prune",
            multiple=True,
            metavar="HOW",
            help="wanda:0.5 or wanda:2:4 zeroes weights, layers:4-6 drops blocks, width:0.25 drops"
            " heads and feed-forward channels; may be given several times.",
        ),
        click.option(
            "--prune-vocab",
            type=text_file,
            metavar="FILE",
            help="Keep only the tokens that this text needs, and bytes and special tokens.",
        ),
    )
    return all_of(function, options)


def lowering_option(function: F) -> F:
    """Add `--lowering`."""
    return click.option(
        "--lowering",
        type=Named(LOWERING),
        default=LOWERING[0],
        show_default=True,
        help="fast writes the program while weights stream; reference is ExecuTorch's own"
        " way (coremltools' for coreml), minutes instead of seconds.",
    )(function)


def asked_for(values: Mapping[str, Any], out: Path = DEFAULT_OUT) -> BuildOptions:
    """Return what `build_options` collected.

    Raises:
        UsageError: Two different models were named.
    """
    from mobilepack.commands.build import BuildOptions
    from mobilepack.pipeline.compression_options import CompressionChoices
    from mobilepack.pipeline.plan import Choices

    group = values["group_size"]
    names = (
        *("linear", "embedding", "kv_cache", "max_seq_len", "prefill_chunk", "lowering"),
        *("soc_model", "qnn_sdk", "ios", "states", "weight_limit_mb"),
    )
    compression = CompressionChoices(
        values["prune"], values["prune_vocab"], values["calibrate"], values["calib"]
    )
    chosen = Choices(
        group_size=int(group) if group else None,
        compression=compression,
        **{n: values[n] for n in names},
    )
    return BuildOptions(
        model=one_model(values["model"], values["model_option"]),
        targets=values["targets"] or (DEFAULT_TARGET,),
        out=out,
        choices=chosen,
        revision=values["revision"],
        offline=values["offline"],
    )
