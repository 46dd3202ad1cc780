"""`mobilepack inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mobilepack.cli import options, render
from mobilepack.cli.compression import compression_text
from mobilepack.cli.npu import print_npu
from mobilepack.errors import ExitCode, UsageError
from mobilepack.models.layer_spec import AttentionSpec
from mobilepack.models.mla_spec import LatentAttentionSpec
from mobilepack.models.moe_spec import MoeSpec
from mobilepack.models.recurrent_spec import Mamba2Spec, ShortConvSpec

if TYPE_CHECKING:
    from mobilepack.commands.inspect import CheckpointView, PackageView
    from mobilepack.models.layer_spec import FeedForward, Mixer
    from mobilepack.models.spec import DecoderSpec


@click.command(
    epilog="""\b
Example
  mobilepack inspect
  mobilepack inspect path/to/checkpoint --json
  mobilepack inspect out/xnnpack
"""
)
@options.model_argument
@options.source_options
@click.option(
    "--min-npu-share",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Fail unless a package's delegate runs this share of operators and of weight bytes.",
)
@options.json_option
def command(
    model: str | None,
    model_option: str | None,
    revision: str | None,
    offline: bool,
    min_npu_share: float | None,
    as_json: bool,
) -> int:
    """Show what is in a checkpoint or a package.

    MODEL is a checkpoint folder, a GGUF file, a hub id or a package; without one, the embedded
    model. Nothing is built or run; of a package every checksum is compared.
    """
    from mobilepack.commands.inspect import CheckpointView, inspect

    chosen = options.one_model(model, model_option)
    view = inspect(chosen, revision=revision, offline=offline)
    if as_json:
        render.document("inspect", render.plain(view))
    elif isinstance(view, CheckpointView):
        print_checkpoint(view)
    else:
        print_package(view)
    return _gate(view, min_npu_share)


def _gate(view: CheckpointView | PackageView, least: float | None) -> int:
    """Hold a package against the share that was asked for; returns the exit status."""
    from mobilepack.commands.inspect import CheckpointView
    from mobilepack.commands.npu import npu_share

    if least is None:
        return ExitCode.OK
    if isinstance(view, CheckpointView):
        raise UsageError(
            "share-of-checkpoint",
            "cannot check --min-npu-share",
            why=f"{view.source} is a checkpoint; only a package has a delegate",
            next="build it, and name the package: mobilepack inspect out/qnn --min-npu-share 1",
        )
    share = npu_share(view.manifest)
    verdict = "passed" if share >= least else "failed"
    render.message(
        f"{render.status(verdict)}  the delegate runs {share:.1%}, asked for is {least:.1%}"
    )
    return ExitCode.OK if share >= least else ExitCode.CHECK_FAILED


def mixer_words(mixer: Mixer) -> str:
    """Describe what mixes the tokens of a block."""
    if isinstance(mixer, AttentionSpec):
        heads = f"{mixer.n_heads} heads, {mixer.n_kv_heads} key/value heads of {mixer.head_dim}"
        return heads + (f", window {mixer.window}" if mixer.window else "")
    if isinstance(mixer, LatentAttentionSpec):
        return f"{mixer.n_heads} heads over a latent of {mixer.kv_rank} + {mixer.rope.dim}"
    if isinstance(mixer, Mamba2Spec):
        return f"state-space model of {mixer.n_heads} heads of {mixer.head_dim} x {mixer.state}"
    if isinstance(mixer, ShortConvSpec):
        return f"convolution over {mixer.conv.taps} tokens"
    return f"linear recurrent unit of {mixer.width}"


def ffn_words(ffn: FeedForward | None) -> str:
    """Describe the feed-forward of a block; nothing where it has none."""
    if isinstance(ffn, MoeSpec):
        shared = "" if ffn.shared is None else f" and a shared one of {ffn.shared.size}"
        return f"{ffn.count} of {ffn.experts} experts of {ffn.size}{shared}"
    return "" if ffn is None else f"feed-forward {ffn.size}"


def print_checkpoint(view: CheckpointView) -> None:
    """Print a checkpoint's decoder, sizes, tokenizer and licence."""
    spec = view.spec
    render.line(
        f"checkpoint  {render.model_name(view.source)}"
        + (f" @ {view.revision}" if view.revision else "")
    )
    render.line(f"folder      {view.folder}")
    render.line(f"family      {spec.family}")
    render.line(f"parameters  {view.parameters:,} ({', '.join(view.dtypes)})")
    for kind in view.layers:
        parts = [mixer_words(kind.layer.mixer), ffn_words(kind.layer.ffn)]
        render.line(f"layers      {kind.count} × {', '.join(part for part in parts if part)}")
    tied = "tied to" if spec.tied_head else "separate from"
    render.line(f"width       {spec.hidden_size}, vocabulary {spec.vocab_size:,}, head {tied} it")
    render.line(f"positions   {spec.max_positions:,}{_positions(spec)}")
    render.line(f"KV cache    {view.kv_bytes_per_token:,} bytes per token in fp32")
    chat = "with" if view.chat_template else "without"
    render.line(f"tokenizer   {', '.join(view.tokenizer_files) or 'none'}; {chat} a chat template")
    files = f" ({', '.join(view.licence.files)})" if view.licence.files else ""
    render.line(f"licence     {view.licence.name or 'not stated'}{files}")
    render.line()
    render.table(
        ("component", "tensors", "parameters", "bytes"),
        [(part.name, part.tensors, part.parameters, part.bytes) for part in view.components],
    )


def _positions(spec: DecoderSpec) -> str:
    """Say how a model knows the order of its tokens."""
    ways = [f", rope {rope.kind} θ {rope.theta:g}" for rope in spec.ropes]
    ways += [", linear biases (ALiBi)"] if spec.alibis else []
    ways += [", learned"] if spec.positions else []
    return "".join(ways)


def print_package(view: PackageView) -> None:
    """Print a package's plan, files, memory, placement and newest runs."""
    manifest, plan = view.manifest, view.manifest.plan
    recipe = plan.recipe
    group = f" group {recipe.group_size}" if recipe.group_size else ""
    render.line(f"package     {view.root} (all checksums match)")
    render.line(
        f"model       {render.model_name(plan.model.source)}, {plan.model.family},"
        f" {manifest.parameters:,} parameters"
    )
    render.line(f"target      {plan.target} through {plan.backend}, lowering {plan.lowering}")
    render.line(
        f"recipe      linear {recipe.linear}{group}, embedding {recipe.embedding},"
        f" KV cache {recipe.kv_cache}; {manifest.quantised_share:.1%} of the weights quantised"
    )
    if compressed := compression_text(manifest):
        render.line(f"compressed  {compressed}")
    render.line(f"lengths     {plan.max_seq_len} positions, {plan.prefill_chunk} tokens per call")
    memory = manifest.memory
    render.line(
        f"memory      parameters {render.size(memory.parameters_bytes)},"
        f" KV cache {render.size(memory.kv_cache_bytes)},"
        f" activations {render.size(memory.activations_bytes)}"
    )
    print_placement(view)
    print_npu(manifest)
    render.line(f"tokenizer   {', '.join(manifest.tokenizer.files)}")
    render.line(f"licence     {manifest.licence.name or 'not stated'}")
    for parity in view.runs.parity:
        verdict = render.status("passed" if parity.passed else "failed")
        render.line(f"verify      {verdict} on {parity.device}, {parity.utc}")
    for bench in view.runs.bench:
        tests = ", ".join(f"{test.test} {test.avg_ts:.1f} tok/s" for test in bench.tests)
        render.line(f"bench       {tests} on {bench.device}, {bench.utc}")
    for lost in view.runs.unreadable:
        render.line(f"unreadable  {lost.path}: {lost.why}")
    render.line(f"plan id     {manifest.plan_id}")
    render.line()
    render.table(
        ("weights", "parameters", "bytes"),
        [(row.format, row.parameters, row.bytes) for row in manifest.weights],
    )
    render.line()
    render.table(("file", "bytes"), [(entry.path, entry.bytes) for entry in manifest.files])


def print_placement(view: PackageView) -> None:
    """Print what the delegate runs and what fell back."""
    placement = view.manifest.placement
    operators = placement.delegated_operators + placement.fallback_operators
    weights = placement.delegated_weight_bytes + placement.fallback_weight_bytes
    share = placement.delegated_weight_bytes / weights if weights else 0.0
    render.line(
        f"placement   {placement.delegated_operators} of {operators} operators and {share:.1%} of"
        f" the weight bytes in {placement.delegates} delegates"
    )
    fallback = ", ".join(f"{item.operator} ×{item.count}" for item in placement.fallback)
    render.line(f"outside     {fallback or 'nothing'}")
