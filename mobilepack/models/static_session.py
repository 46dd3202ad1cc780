"""Feeding the static form: masks, positions, padding, and the cache that the caller keeps.

Plain numpy, for whoever runs the methods: eager torch, a fake-quantised graph, or a runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilepack.contract.manifest import Encoding, Method, StaticForm, TensorSpec

Array = npt.NDArray[Any]
Run = Callable[[str, Sequence[Array]], Sequence[Array]]
"""Runs a method by its name; arrays have the types and shapes of its specification."""


class StaticSession:
    """One sequence; called like a step of the dynamic form: tokens [S], position -> logits [V]."""

    def __init__(self, form: StaticForm, methods: Sequence[Method], run: Run) -> None:
        """Make empty caches."""
        self._form = form
        self._methods = {method.name: method for method in methods}
        self._run = run
        self.caches: dict[str, Array] = {
            t.name: _empty(t) for t in self._methods["decode"].inputs if is_cache(t.name)
        }

    def __call__(self, tokens: npt.NDArray[np.int64], position: int) -> npt.NDArray[np.float32]:
        """Feed tokens [S] from a position on; return the last one's logits [V].

        Raises:
            ValueError: More tokens than one call takes, or positions that the cache lacks.
        """
        count, past = len(tokens), self._form.past
        name = "decode" if count == 1 else "prefill"
        width = 1 if count == 1 else self._form.prefill_tokens
        last = position + count - 1 if self._form.states else position  # states must hold them all
        if count > width or last >= past + (not self._form.states):
            raise ValueError(f"{count} tokens from position {position} on do not fit")
        method = self._methods[name]
        inputs = self.inputs(np.asarray(tokens), position, width)
        outputs = dict(zip((t.name for t in method.outputs), self._run(name, inputs), strict=True))
        self._store(outputs, position, count)
        return decoded(outputs["logits"], method.outputs[0].encoding).reshape(-1)

    def inputs(self, tokens: npt.NDArray[np.int64], position: int, width: int) -> list[Array]:
        """Return the inputs of the method that takes `width` tokens for tokens [S], in order."""
        count = len(tokens)
        given = {"tokens": tokens, "positions": np.arange(position, position + count)}
        method = self._methods["decode" if width == 1 else "prefill"]
        return [self._input(spec, given, position, width, count) for spec in method.inputs]

    def _input(
        self, spec: TensorSpec, given: Mapping[str, Array], position: int, width: int, count: int
    ) -> Array:
        """Return one input, what is fed padded in front."""
        if spec.name in given:
            padded = np.zeros(spec.shape, np.int32)
            padded[0, spec.shape[1] - count :] = given[spec.name]
            return padded
        if spec.name == "write":
            rows = np.zeros(spec.shape, spec.dtype)
            at = np.arange(count)
            rows[0, 0, width - count + at, position + at] = 1
            return rows
        if spec.name.startswith("mask"):
            window = int(spec.name.removeprefix("mask").removeprefix("_") or 0)
            return encoded(self._mask(spec, window, position, width - count), spec)
        return self.caches[spec.name]

    def _mask(
        self, spec: TensorSpec, window: int, position: int, padding: int
    ) -> npt.NDArray[np.float32]:
        """Return 0 where a query may look, else the mask value, [1, 1, T, columns].

        Padded queries see what the first real one sees, so that no row is without a key.
        """
        past, (width, columns) = self._form.past, spec.shape[2:]
        rows = np.maximum(np.arange(width) - padding, 0)[:, None] + position
        places = np.full(columns, np.iinfo(np.int64).max)
        places[:past] = np.arange(past)
        if not self._form.states:
            places[past : past + width] = np.arange(width) - padding + position
        seen = places[None] <= rows
        if window:
            seen &= places[None] > rows - window
        if not self._form.states:
            seen[:, :past] &= np.arange(past)[None] < position
            seen[:, past : past + padding] = False
        mask = np.where(seen, 0.0, self._form.mask_value).astype(np.float32)
        return mask[None, None]

    def _store(self, outputs: Mapping[str, Array], position: int, count: int) -> None:
        end = min(position + count, self._form.past)  # the very last position is never read again
        kept = end - position
        first = self._form.keys == "channels_first"
        for name, cache in self.caches.items():
            new = outputs[name]
            columns = first and name[0] == "k"
            width = new.shape[-1] if columns else new.shape[-2]
            part = slice(width - count, width - count + kept)
            if columns:
                cache[..., position:end] = new[..., part]
            else:
                cache[..., position:end, :] = new[..., part, :]


def is_cache(name: str) -> bool:
    """Tell whether an input holds a layer's keys or values."""
    kind, _, index = name.partition("_")
    return kind in ("k", "v") and index.isdigit()


def _empty(spec: TensorSpec) -> Array:
    zero = 0 if spec.encoding is None else spec.encoding.zero_point
    return np.full(spec.shape, zero, dtype=spec.dtype)


def encoded(values: npt.NDArray[np.float32], spec: TensorSpec) -> Array:
    """Return numbers as a tensor's integers, or as they are if it has no encoding."""
    if spec.encoding is None:
        return values.astype(spec.dtype)
    limits = np.iinfo(spec.dtype)
    integers = np.rint(values / spec.encoding.scale) + spec.encoding.zero_point
    clipped: Array = np.clip(integers, limits.min, limits.max).astype(spec.dtype)
    return clipped


def decoded(values: Array, encoding: Encoding | None) -> npt.NDArray[np.float32]:
    """Return the numbers that integers stand for."""
    if encoding is None:
        return values.astype(np.float32)
    return ((values.astype(np.int64) - encoding.zero_point) * encoding.scale).astype(np.float32)


def static_methods(
    names: Sequence[str],
    shapes: Mapping[str, Sequence[tuple[tuple[int, ...], str]]],
    outputs: Mapping[str, Sequence[tuple[tuple[int, ...], str]]],
    encodings: Mapping[str, Encoding] | None = None,
) -> tuple[Method, ...]:
    """Return the description of methods.

    Args:
        names: Of the inputs; outputs are the logits and then what follows the masks.
        shapes: By method, shape and dtype of every input.
        outputs: By method, of every output.
        encodings: By tensor's name, the same in all methods; a dtype then is the integer's.
    """
    known = encodings or {}
    results = ("logits", *(name for name in names if is_cache(name)))

    def specs(
        of: Sequence[str], kinds: Sequence[tuple[tuple[int, ...], str]]
    ) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=name, dtype=dtype, shape=shape, encoding=known.get(name))
            for name, (shape, dtype) in zip(of, kinds, strict=True)
        )

    return tuple(
        Method(name=name, inputs=specs(names, shapes[name]), outputs=specs(results, outputs[name]))
        for name in shapes
    )


def integer_methods(
    methods: tuple[Method, ...], encodings: Mapping[str, Encoding]
) -> tuple[Method, ...]:
    """Return the description of the same methods; what has an encoding is in unsigned 8 bits."""

    def quantised(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(
            spec.model_copy(update={"dtype": "uint8", "encoding": encodings[spec.name]})
            if spec.name in encodings
            else spec
            for spec in specs
        )

    return tuple(
        method.model_copy(
            update={"inputs": quantised(method.inputs), "outputs": quantised(method.outputs)}
        )
        for method in methods
    )
