"""Do to a model's weights what the plan asks for, before they are lowered."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobilepack.contract.compression import Compression, CompressionReport, Sparsity
from mobilepack.contract.manifest import BuildPlan
from mobilepack.models.checkpoint import CONFIG, GENERATION_CONFIG
from mobilepack.models.compression.select import Indices, Selected, with_vocabulary, without_layers
from mobilepack.models.config import read_json
from mobilepack.models.spec import DecoderSpec
from mobilepack.models.tokenizer import Tokenizer, write_tokenizer
from mobilepack.models.weights import LoadedModel
from mobilepack.pipeline.calibration_rows import text_rows
from mobilepack.pipeline.compression_options import CompressionChoices, calibration_text
from mobilepack.pipeline.stages import Stages

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from mobilepack.models.source import Source
    from mobilepack.models.streaming import LinearInput
    from mobilepack.pipeline.calibrate import Task

_WIDTH_ROWS = 8  # each is a forward and a backward pass; LLM-Pruner uses 10 short samples


@dataclass(frozen=True, slots=True)
class Compressed:
    """A model to be lowered, and what was done to it.

    Attributes:
        model: Its folder holds the companion files as they go into the package.
        rows: Token ids of the text that calibration looks at.
        report: None where nothing was asked for.
    """

    model: LoadedModel
    rows: tuple[tuple[int, ...], ...] = ()
    report: CompressionReport | None = None


@contextmanager
def pruned(
    model: LoadedModel, plan: BuildPlan, choices: CompressionChoices, stages: Stages
) -> Iterator[Compressed]:
    """Yield the model with the tokens, blocks and widths that the plan leaves it.

    Raises:
        UsageError: The tokenizer or the family cannot be cut this way.
    """
    wanted = plan.compression
    if wanted is None:
        yield Compressed(model)
        return
    with tempfile.TemporaryDirectory(prefix="mobilepack-compress-") as folder:
        work = _Work(model, plan, wanted, choices, Path(folder))
        if wanted.changes_shapes:
            work.shapes(stages)
        yield work.result()


@dataclass(slots=True)
class _Work:
    """A model while its shapes change.

    Attributes:
        folder: Companion files, rewritten step by step.
        heads: Key and value heads that each block keeps.
        ffn: Feed-forward channels that each block keeps.
    """

    model: LoadedModel
    plan: BuildPlan
    wanted: Compression
    choices: CompressionChoices
    folder: Path
    rows: tuple[tuple[int, ...], ...] = ()
    heads: tuple[Indices, ...] = ()
    ffn: tuple[int, ...] = ()
    before: LoadedModel = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.model

    def shapes(self, stages: Stages) -> None:
        copy_small_files(self.model, self.folder)
        checkpoint = replace(self.model.checkpoint, folder=self.folder)
        self.model = replace(self.model, checkpoint=checkpoint)
        if self.choices.vocabulary is not None:
            with stages.stage("prune vocabulary"):
                self._vocabulary(calibration_text(self.choices.vocabulary))
        if self.wanted.dropped_layers:
            spec, selection = without_layers(self.model.spec, self.wanted.dropped_layers)
            self._take(spec, Selected(self.model.weights, selection))
            _drop_layers(self.folder / CONFIG, self.wanted.dropped_layers)
        if self.wanted.width:
            with stages.stage("prune width") as on_share:
                self._width(on_share)

    def _take(self, spec: DecoderSpec, weights: Source) -> None:
        self.model = replace(self.model, spec=spec, weights=weights)

    def _vocabulary(self, text: str) -> None:
        from mobilepack.models.compression.vocabulary import (
            check_round_trip,
            choose_vocabulary,
            rewrite,
        )

        original = self.before.checkpoint.folder
        chosen = choose_vocabulary(original, text, self.model.spec.vocab_size)
        rewrite(self.folder, chosen)
        check_round_trip(original, self.folder, text, chosen)
        spec, selection = with_vocabulary(self.model.spec, chosen.kept, chosen.new_id)
        self._take(spec, Selected(self.model.weights, selection))

    def _width(self, on_share: Callable[[float], None]) -> None:
        from mobilepack.models.compression.gradient import channel_importance
        from mobilepack.models.compression.width import gates, kept_width, narrowed
        from mobilepack.models.tables import make_tables
        from mobilepack.pipeline.export import export_decoder
        from mobilepack.pipeline.reference import Eager

        spec, weights = self.model.spec, self.model.weights
        width = kept_width(spec, self.wanted.width, self.plan.recipe.group_size)
        rows = self._text_rows()[:_WIDTH_ROWS]
        exported = export_decoder(spec, self.plan.max_seq_len, self.plan.prefill_chunk)
        tables = make_tables(spec, self.plan.max_seq_len)
        eager = Eager(exported, weights, tables)
        importance = channel_importance(eager, rows, gates(spec), on_share)
        smaller, selection, self.heads = narrowed(spec, importance, width)
        self.ffn = (width.ffn,) * len(smaller.layers)
        self._take(smaller, Selected(weights, selection))
        _narrow(self.folder / CONFIG, smaller)

    def _text_rows(self) -> tuple[tuple[int, ...], ...]:
        if not self.rows:
            folder = self.model.checkpoint.folder
            self.rows = text_rows(folder, self.choices.text, self.plan.max_seq_len)
        return self.rows

    def result(self) -> Compressed:
        looks = self.wanted.text_sha256 is not None
        rows = self._text_rows() if looks else ()
        report = CompressionReport(
            parameters_before=self.before.weights.parameters(),
            tokens_before=self.before.spec.vocab_size,
            tokens=self.model.spec.vocab_size,
            layers_before=len(self.before.spec.layers),
            layers=len(self.model.spec.layers),
            kept_kv_heads=self.heads,
            kept_ffn_channels=self.ffn,
            text_tokens=sum(len(row) for row in rows),
        )
        return Compressed(self.model, rows, report)


def predicted_spec(model: LoadedModel, plan: BuildPlan, choices: CompressionChoices) -> DecoderSpec:
    """Return the decoder that a build would lower, without looking at a weight.

    Raises:
        UsageError: The tokenizer or the family cannot be cut this way.
    """
    from mobilepack.models.compression.vocabulary import choose_vocabulary
    from mobilepack.models.compression.width import kept_width, resized

    spec, wanted = model.spec, plan.compression
    if wanted is None or not wanted.changes_shapes:
        return spec
    if choices.vocabulary is not None:
        text = calibration_text(choices.vocabulary)
        chosen = choose_vocabulary(model.checkpoint.folder, text, spec.vocab_size)
        spec = replace(spec, vocab_size=len(chosen.kept))
    if wanted.dropped_layers:
        spec, _ = without_layers(spec, wanted.dropped_layers)
    if wanted.width:
        spec = resized(spec, kept_width(spec, wanted.width, plan.recipe.group_size))
    return spec


def copy_small_files(model: LoadedModel, folder: Path) -> None:
    """Copy configs, tokenizer and licence files of a checkpoint."""
    source = model.checkpoint.folder
    write_tokenizer(Tokenizer.open(source), source, folder)
    names = (CONFIG, GENERATION_CONFIG, *model.checkpoint.licence.files)
    for name in (*names, "README.md"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


_PER_LAYER = ("layer_types", "no_rope_layers", "mlp_layer_types")
_LAYER_COUNT = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers")


def _drop_layers(path: Path, dropped: tuple[int, ...]) -> None:
    config = read_json(path)
    for key in _LAYER_COUNT:
        count = config.get(key)
        if isinstance(count, int):
            config[key] = count - len(dropped)
    for key in _PER_LAYER:
        items = config.get(key)
        if isinstance(items, list):
            config[key] = [item for index, item in enumerate(items) if index not in dropped]
    path.write_text(json.dumps(config, indent=1) + "\n", "utf-8")


def _narrow(path: Path, spec: DecoderSpec) -> None:
    from mobilepack.models.compression.width import checked

    mixer, ffn = checked(spec)
    sizes = {
        "num_attention_heads": mixer.n_heads,
        "num_key_value_heads": mixer.n_kv_heads,
        "head_dim": mixer.head_dim,
        "intermediate_size": ffn.size,
    }
    path.write_text(json.dumps(read_json(path) | sizes, indent=1) + "\n", "utf-8")


def chosen_numbers(
    compressed: Compressed,
    plan: BuildPlan,
    exported: ExportedProgram,
    tables: dict[str, torch.Tensor],
    folder: Path,
    stages: Stages,
) -> Compressed:
    """Return the model with pruned weights at zero and calibrated integers.

    Args:
        compressed: From `pruned`.
        plan: The build.
        exported: Its graph.
        tables: Its tables.
        folder: Where integers are kept until the package is complete.
        stages: Timed.
    """
    wanted = plan.compression
    if wanted is None:
        return compressed
    from mobilepack.pipeline.calibrate import Task, calibrate

    report = compressed.report
    task = Task(exported, compressed.model.weights, tables, plan.recipe, compressed.rows)
    if wanted.sparsity is not None:
        with stages.stage("prune weights (wanda)") as on_share:
            weights, zeros = _sparse(task, wanted.sparsity, on_share)
        task = replace(task, weights=weights)
        report = report and report.model_copy(update={"zero_share": zeros})
    if wanted.calibration is not None:
        keep = wanted.sparsity is not None
        with stages.stage(f"calibrate ({wanted.calibration})") as on_share:
            made = calibrate(wanted.calibration, task, folder, on_share, keep_zeros=keep)
        task = replace(task, weights=made)
    return Compressed(replace(compressed.model, weights=task.weights), compressed.rows, report)


def _sparse(
    task: Task, sparsity: Sparsity, on_share: Callable[[float], None]
) -> tuple[Source, float]:
    """Prune every block's weights, each by what the pruned maps before it feed it."""
    from mobilepack.models.compression.sparse import Sparse
    from mobilepack.pipeline.calibrate import linear_weights, show_linears

    sparse = Sparse(task.weights, sparsity)

    def take(seen: LinearInput) -> None:
        (inputs,) = seen.rows.values()
        if sparse.takes(seen.weight):
            sparse.see(seen.weight, inputs.norm(dim=0))

    show_linears(task, sparse, take, on_share)
    return sparse, sparse.zero_share(linear_weights(task.exported))
