"""A checkpoint's weights by the decoder's own parameter names, checked as a whole at once."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from mobilepack.errors import BuildError, UsageError, near_misses
from mobilepack.models.checkpoint import CONFIG, Checkpoint
from mobilepack.models.families.registry import family_of, read_spec
from mobilepack.models.gguf.names import GgufFamily, whole_norms
from mobilepack.models.resolve import resolve_sources
from mobilepack.models.safetensors_file import FLOAT_DTYPES
from mobilepack.models.source import Source
from mobilepack.models.spec import DecoderSpec, TensorSource

if TYPE_CHECKING:
    import torch

# Buffers that old versions of transformers saved and every version recomputes.
_HARMLESS = re.compile(r"(.*\.)?(rotary_emb\.(inv_freq|cos_cached|sin_cached)|attn\.masked_bias)")
_BLOCK_ROWS = 1024
_LISTED = 12
_COMPARED = 64


class Weights:
    """Parameters of a decoder, read from a checkpoint when they are asked for."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        spec: DecoderSpec,
        sources: Mapping[str, TensorSource],
        spare: frozenset[str] = frozenset(),
    ) -> None:
        """Check every tensor at once.

        Args:
            checkpoint: Where the weights are.
            spec: The decoder.
            sources: Where each of its parameters lies.
            spare: Keys that may be left over because they repeat another tensor.

        Raises:
            UsageError: Tensors are missing, have the wrong shape or element type, or are left
                over; all of them in one error.
        """
        self.checkpoint = checkpoint
        self.spec = spec
        self.sources = MappingProxyType(dict(sources))
        problems = [*_missing(checkpoint, sources), *_misfits(checkpoint, sources)]
        problems += _left_over(checkpoint, spec, sources, spare)
        if problems:
            raise _mismatch(checkpoint, problems)

    def names(self) -> Collection[str]:
        """Return the names of all parameters."""
        return self.sources.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a parameter's shape."""
        return self.sources[name].shape

    def rows(
        self, name: str, start: int, stop: int, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Read rows `start` to `stop` (exclusive) of a parameter as float32 [rows, ...].

        Args:
            name: The decoder's name, for example `layers.0.q.weight`.
            start: First row, from 0.
            stop: One past the last row.
            out: Contiguous float32 tensor to read into; made if absent.

        Raises:
            BuildError: A value is NaN or infinite.
        """
        source = self.sources[name]
        if source.transposed:
            result = self._transposed(source, start, stop)
            result = result if out is None else out.copy_(result)
        else:
            result = self._gathered(source, start, stop, out)
        _check_finite(result, source.key, self.checkpoint.files[source.key].path, start)
        if source.scale != 1.0:
            result *= source.scale
        if source.offset:
            result += source.offset
        return result

    def tensor(self, name: str) -> torch.Tensor:
        """Read a whole parameter as float32."""
        return self.rows(name, 0, self.shape(name)[0])

    def identity(self, name: str) -> str:
        """Return a text that is equal for parameters made of the same bytes (a tied head)."""
        source = self.sources[name]
        rows = f"{source.start}:{source.start + source.shape[0]}{source.pick or ''}"
        change = f" * {source.scale} + {source.offset}" if _changed(source) else ""
        return f"{'+'.join(source.keys)}[{rows}]{'.T' * source.transposed}{change}"

    def parameters(self) -> int:
        """Return how many numbers the model has; shared ones count once."""
        unique = {self.identity(name): source.shape for name, source in self.sources.items()}
        return sum(math.prod(shape) for shape in unique.values())

    def _gathered(
        self, source: TensorSource, start: int, stop: int, out: torch.Tensor | None
    ) -> torch.Tensor:
        """Read rows of a parameter, run by run of the rows that lie side by side in a tensor."""
        import torch

        each = source.shape[0] // len(source.keys)
        runs = [
            (key, begin, end)
            for index, key in enumerate(source.keys)
            for begin, end in source.runs(
                max(start - index * each, 0), min(stop - index * each, each)
            )
            if begin < end
        ]
        if len(runs) == 1:
            key, begin, end = runs[0]
            return self._read(source, key, (begin, end), out)
        if out is None:
            out = torch.empty((stop - start, *source.shape[1:]), dtype=torch.float32)
        at = 0
        for key, begin, end in runs:
            self._read(source, key, (begin, end), out[at : at + end - begin])
            at += end - begin
        return out

    def _read(
        self, source: TensorSource, key: str, run: tuple[int, int], out: torch.Tensor | None
    ) -> torch.Tensor:
        """Read rows of a tensor, which are not its first axis where it is stored otherwise."""
        begin, end = run
        if not source.stored:
            return self.checkpoint.rows(key, begin, end, out)
        row = source.shape[1:]
        each = math.prod(source.stored[1:]) // math.prod(row)
        first = begin // each
        block = self.checkpoint.rows(key, first, -(-end // each)).reshape(-1, *row)
        rows = block[begin - first * each : end - first * each]
        return rows.clone() if out is None else out.copy_(rows)

    def _transposed(self, source: TensorSource, start: int, stop: int) -> torch.Tensor:
        """Read rows of a parameter that is stored as [in, out], a block of inputs at a time."""
        import torch

        inputs = source.shape[1]
        out = torch.empty((stop - start, inputs), dtype=torch.float32)
        (first, last), *others = source.runs(start, stop)
        if others:
            raise ValueError(f"{source.key} is transposed and fused head by head")
        for begin in range(0, inputs, _BLOCK_ROWS):
            end = min(begin + _BLOCK_ROWS, inputs)
            block = self.checkpoint.rows(source.key, begin, end)
            out[:, begin:end] = block[:, first:last].T
        return out


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An open checkpoint with the decoder it describes and that decoder's weights."""

    checkpoint: Checkpoint
    spec: DecoderSpec
    weights: Source

    def close(self) -> None:
        """Close the weight files."""
        self.checkpoint.close()


def open_model(
    source: str | Path, *, revision: str | None = None, offline: bool = False
) -> LoadedModel:
    """Open a checkpoint (folder, GGUF file or hub id), read its config and check its weights.

    Raises:
        UsageError: The checkpoint cannot be built; see Checkpoint, family_of and Weights.
        MissingError: The hub or its cache does not have it.
    """
    checkpoint = Checkpoint.open(
        source,
        revision=revision,
        offline=offline,
        check=lambda config: family_of(config).read(config),
    )
    try:
        file = str(checkpoint.folder / CONFIG)
        family = family_of(checkpoint.config, file)
        spec = read_spec(checkpoint.config, checkpoint.generation_config, file)
        kind = Weights
        if checkpoint.gguf:
            from mobilepack.models.gguf.rounding import GgufWeights

            family, spec = GgufFamily(family, checkpoint.files), whole_norms(spec)
            kind = GgufWeights
        found = resolve_sources(checkpoint, family, spec)
        weights = kind(checkpoint, found.spec, found.sources, found.spare)
        return LoadedModel(checkpoint, found.spec, weights)
    except BaseException:
        checkpoint.close()
        raise


def _changed(source: TensorSource) -> bool:
    return source.scale != 1.0 or source.offset != 0.0


def _missing(checkpoint: Checkpoint, sources: Mapping[str, TensorSource]) -> Iterable[str]:
    wanted = dict.fromkeys(key for source in sources.values() for key in source.keys)
    unused = [key for key in checkpoint.files if key not in wanted]
    missing = [key for key in wanted if key not in checkpoint.files]
    for place, key in enumerate(missing):
        # Comparing names is quadratic, and a file of wholly other names has no near misses.
        compare = place < _LISTED and 0 < len(unused) <= _COMPARED
        hint = near_misses(key, unused) if compare else ""
        near = f" ({hint})" if hint.startswith("did you mean") else ""
        yield f"{key} is missing{near}"


def _misfits(checkpoint: Checkpoint, sources: Mapping[str, TensorSource]) -> Iterable[str]:
    """Find tensors of the wrong shape or type; the parts taken of one must make up the whole."""
    parts: dict[str, set[TensorSource]] = {}
    for source in sources.values():
        for key in source.keys:
            if key in checkpoint.files:
                parts.setdefault(key, set()).add(_plain_part(source))
    for key, taken in parts.items():
        info, expected = checkpoint.info(key), _whole_shape(taken)
        if expected != info.shape:
            yield f"{key} is {list(info.shape)}, but config.json makes it {list(expected)}"
        if not checkpoint.readable(key):
            yield f"{key} is {info.dtype}, not one of {', '.join(FLOAT_DTYPES)}"


def _plain_part(source: TensorSource) -> TensorSource:
    """Return the part of one tensor that a source takes, whatever is done with its numbers."""
    shape = (source.shape[0] // len(source.keys), *source.shape[1:])
    return replace(source, key="", shape=shape, more=(), scale=1.0, offset=0.0)


def _whole_shape(parts: Iterable[TensorSource]) -> tuple[int, ...]:
    """Return the shape of the tensor that parts are taken from, if they are to cover it."""
    ordered = sorted(parts, key=lambda part: part.start)
    if ordered[0].stored:
        return ordered[0].stored
    shape = (sum(part.shape[0] for part in ordered), *ordered[0].shape[1:])
    return shape[::-1] if ordered[0].transposed else shape


def _left_over(
    checkpoint: Checkpoint,
    spec: DecoderSpec,
    sources: Mapping[str, TensorSource],
    spare: frozenset[str],
) -> Iterable[str]:
    """Find tensors that nothing uses: dropping a bias or a norm would be another model."""
    used = spare.union(key for source in sources.values() for key in source.keys)
    for key in checkpoint.files:
        if key not in used and not _HARMLESS.fullmatch(key):
            yield f"{key} is not part of a {spec.family} model with this config.json"


def _mismatch(checkpoint: Checkpoint, problems: list[str]) -> UsageError:
    more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    return UsageError(
        "weights-mismatch",
        f"the weights in {checkpoint.place} do not fit "
        + ("its metadata" if checkpoint.gguf else "its config.json"),
        why="; ".join(problems[:_LISTED]) + more,
        next="check that config.json and the weight files are of the same model and revision",
    )


def _check_finite(values: torch.Tensor, key: str, path: Path, start: int) -> None:
    """Raise if a value is NaN or infinite.

    The sum is one cheap pass, and not finite if a value is not; it may overflow for huge finite
    values, so a suspicion is confirmed value by value.
    """
    import torch

    if math.isfinite(values.sum().item()):
        return
    wrong = torch.isfinite(values).logical_not_().nonzero()
    if not len(wrong):
        return
    index = [int(i) for i in wrong[0]]
    index[0] += start
    raise BuildError(
        "weights-not-finite",
        f"cannot use the tensor {key!r} of {path}",
        why=f"{len(wrong)} of its values are NaN or infinite, the first at {index}",
        next="download the checkpoint again; if it stays, its training or conversion went wrong",
    )
