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

_FIXED = ("tokens", "positions")


class StaticSession:
    """One sequence; called like a step of the dynamic form: tokens [S], position -> logits [V]."""

    def __init__(self, form: StaticForm, methods: Sequence[Method], run: Run) -> None:
        """Make empty caches."""
        self._form = form
        self._methods = {method.name: method for method in methods}
        self._run = run
        decode = self._methods["decode"]
        self._masks = [t for t in decode.inputs if t.name.startswith("mask")]
        self.caches: dict[str, Array] = {
            t.name: _empty(t)
            for t in decode.inputs
            if t.name not in _FIXED and not t.name.startswith("mask")
        }

    def __call__(self, tokens: npt.NDArray[np.int64], position: int) -> npt.NDArray[np.float32]:
        """Feed tokens [S] from a position on; return the last one's logits [V].

        Raises:
            ValueError: More tokens than one call takes, or positions that the cache lacks.
        """
        count = len(tokens)
        name = "decode" if count == 1 else "prefill"
        width = 1 if count == 1 else self._form.prefill_tokens
        if count > width or position > self._form.past:
            raise ValueError(f"{count} tokens from position {position} on do not fit")
        method = self._methods[name]
        inputs = self.inputs(np.asarray(tokens), position, width)
        outputs = dict(zip((t.name for t in method.outputs), self._run(name, inputs), strict=True))
        self._store(outputs, position, count)
        return decoded(outputs["logits"], method.outputs[0].encoding).reshape(-1)

    def inputs(self, tokens: npt.NDArray[np.int64], position: int, width: int) -> list[Array]:
        """Return a method's inputs for tokens [S], padded in front to `width`."""
        padding = width - len(tokens)
        ids = np.zeros((1, width), np.int32)
        ids[0, padding:] = tokens
        places = np.zeros((1, width), np.int32)
        places[0, padding:] = np.arange(position, position + len(tokens))
        masks = [
            encoded(self._mask(window, position, padding, width), spec)
            for window, spec in zip(self._form.windows, self._masks, strict=True)
        ]
        return [ids, places, *masks, *self.caches.values()]

    def _mask(
        self, window: int, position: int, padding: int, width: int
    ) -> npt.NDArray[np.float32]:
        """Return 0 where a query may look, else the mask value, [1, 1, T, past + T].

        Padded queries see what the first real one sees, so that no row is without a key.
        """
        past = self._form.past
        rows = np.maximum(np.arange(width) - padding, 0)[:, None] + position
        columns = np.concatenate([np.arange(past), np.arange(width) - padding + position])
        seen = columns[None] <= rows
        if window:
            seen &= columns[None] > rows - window
        seen[:, :past] &= np.arange(past)[None] < position
        seen[:, past : past + padding] = False
        mask = np.where(seen, 0.0, self._form.mask_value).astype(np.float32)
        return mask[None, None]

    def _store(self, outputs: Mapping[str, Array], position: int, count: int) -> None:
        end = min(position + count, self._form.past)  # the very last position is never read again
        kept = end - position
        for name, cache in self.caches.items():
            new = outputs[name]
            width = new.shape[-1] if name[0] == "k" else new.shape[-2]
            part = slice(width - count, width - count + kept)
            if name[0] == "k":
                cache[..., position:end] = new[..., part]
            else:
                cache[..., position:end, :] = new[..., part, :]


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
    results = ("logits", *(n for n in names if n not in _FIXED and not n.startswith("mask")))

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
    """Return the description of the same methods in integers: caches 8 bits, the others 16."""

    def kind(name: str) -> str:
        return "uint8" if name.startswith(("k_", "v_")) else "uint16"

    def quantised(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(
            spec.model_copy(update={"dtype": kind(spec.name), "encoding": encodings[spec.name]})
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
