"""Write down what the static form computes, by running it once over tensors without content.

A function mode sees each call of torch that the form makes (30 layers cost a second; an export of
the same costs minutes in ExecuTorch's passes). Every call is one of the rules below or an error:
nothing is left to chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch.overrides import TorchFunctionMode, resolve_name

from mobilepack.backends.qnn.graph import Graph, Kind, Step, Tensor
from mobilepack.models.static import StaticDecoder

_Rule = Callable[["Recorder", torch.Tensor, Sequence[Any], Mapping[str, Any]], None]
_F = torch.nn.functional
_T = torch.Tensor


class Watcher(Protocol):
    """Told of a trace before it begins."""

    def attach(self, decoder: StaticDecoder, recorder: Recorder) -> None:
        """Look on as a decoder is traced."""


def trace(
    decoder: StaticDecoder,
    names: Sequence[str],
    outputs: Sequence[str],
    watcher: Watcher | None = None,
) -> Graph:
    """Return the graph of a static form.

    Args:
        decoder: On any device; its parameters' values do not matter.
        names: Of the inputs.
        outputs: Names that the outputs get in the graph.
        watcher: May wrap the decoder's large steps, on the decoder as it is traced.

    Raises:
        NotImplementedError: It calls something that no rule knows.
    """
    meta = decoder.to("meta")
    inputs = [t.to("meta") for t in meta.example(-1.0)]
    recorder = Recorder(meta, dict(zip(names, inputs, strict=True)))
    if watcher is not None:
        watcher.attach(meta, recorder)
    with recorder, torch.no_grad():
        results = meta(*inputs)
    return recorder.graph(results, outputs)


class Recorder(TorchFunctionMode):
    """Writes steps down while it is entered."""

    def __init__(self, decoder: StaticDecoder, inputs: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._steps: list[Step] = []
        self._counts: Counter[str] = Counter()
        self._alive: list[torch.Tensor] = []  # so that no id comes again
        self._known: dict[int, Tensor] = {}
        for name, tensor in (*decoder.named_parameters(), *decoder.named_buffers()):
            self._know(tensor, Tensor(name, tuple(tensor.shape), "float32", "constant"))
        self.inputs = tuple(
            self._know(tensor, Tensor(name, tuple(tensor.shape), _kind(tensor), "input"))
            for name, tensor in inputs.items()
        )

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        keywords = kwargs or {}
        with torch._C.DisableTorchFunction():
            result = func(*args, **keywords)
        if isinstance(result, torch.Tensor | tuple | list) and not isinstance(result, torch.Size):
            rule = _RULES.get(func)
            if rule is None:
                raise NotImplementedError(f"the static form calls {resolve_name(func)}")
            rule(self, cast(torch.Tensor, result), args, keywords)
        return result

    @property
    def count(self) -> int:
        """Steps so far."""
        return len(self._steps)

    def emit(
        self, kind: Kind, inputs: Sequence[Any], result: torch.Tensor, **attributes: Any
    ) -> None:
        """Write a step down; inputs are tensors that are known, or numbers."""
        known = tuple(self.tensor(value) for value in inputs)
        name = f"{kind}_{self._counts[kind]}"
        self._counts[kind] += 1
        output = Tensor(name, tuple(result.shape), _kind(result), "inner")
        self._know(result, output)
        self._steps.append(Step(kind, known, output, attributes))

    def tensor(self, value: Any) -> Tensor:
        """Return what a value is in the graph."""
        if isinstance(value, int | float):
            return Tensor(f"number_{float(value)!r}", (1,), "float32", "constant", float(value))
        found = self._known.get(id(value))
        if found is None:
            raise NotImplementedError(f"a tensor of shape {tuple(value.shape)} of unknown origin")
        return found

    def same(self, kind: Kind, result: torch.Tensor, source: torch.Tensor) -> None:
        """Let a result be its source; the step counts, so that names do not depend on lengths."""
        self._counts[kind] += 1
        self._know(result, self.tensor(source))

    def _know(self, tensor: torch.Tensor, as_: Tensor) -> Tensor:
        self._alive.append(tensor)
        self._known[id(tensor)] = as_
        return as_

    def graph(self, results: Sequence[torch.Tensor], names: Sequence[str]) -> Graph:
        """Return what was written down, its outputs under the names they have outside."""
        renamed = {
            self.tensor(result).name: f"{name}_out"
            for name, result in zip(names, results, strict=True)
        }

        def named(t: Tensor) -> Tensor:
            name = renamed.get(t.name)
            return t if name is None else Tensor(name, t.shape, t.dtype, t.role, t.number)

        steps = tuple(
            Step(s.kind, tuple(map(named, s.inputs)), named(s.output), s.attributes)
            for s in self._steps
        )
        outputs = tuple(named(self.tensor(result)) for result in results)
        return Graph(self.inputs, outputs, steps)


def _kind(tensor: torch.Tensor) -> Any:
    return "float32" if tensor.dtype == torch.float32 else "int32"


def _two(kind: Kind, *, turned: bool = False) -> _Rule:
    def rule(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
        rec.emit(kind, (args[1], args[0]) if turned else args[:2], result)

    return rule


def _one(kind: Kind) -> _Rule:
    def rule(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
        rec.emit(kind, args[:1], result)

    return rule


def _reshape(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
    if tuple(result.shape) == tuple(args[0].shape):
        rec.same("reshape", result, args[0])
    else:
        rec.emit("reshape", args[:1], result)


def _permute(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
    order = args[1:] if isinstance(args[1], int) else args[1]
    rec.emit("permute", args[:1], result, order=tuple(d % result.dim() for d in order))


def _transpose(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
    order = list(range(result.dim()))
    one, other = args[1] % result.dim(), args[2] % result.dim()
    order[one], order[other] = other, one
    rec.emit("permute", args[:1], result, order=tuple(order))


def _cat(rec: Recorder, result: torch.Tensor, args: Sequence[Any], keywords: Any) -> None:
    axis = args[1] if len(args) > 1 else keywords.get("dim", 0)
    parts = [part for part in args[0] if part.numel()]
    if len(parts) == 1:
        rec.same("cat", result, parts[0])
    else:
        rec.emit("cat", parts, result, axis=axis % result.dim())


def _stack(rec: Recorder, result: torch.Tensor, args: Sequence[Any], keywords: Any) -> None:
    axis = (args[1] if len(args) > 1 else keywords.get("dim", 0)) % result.dim()
    shape = [1 if d == axis else size for d, size in enumerate(result.shape)]
    sources = {id(source): source for source in args[0]}  # a repeated one is reshaped once
    parts = {key: torch.empty(shape, device="meta") for key in sources}
    for key, source in sources.items():
        rec.emit("reshape", (source,), parts[key])
    rec.emit("cat", [parts[id(source)] for source in args[0]], result, axis=axis)


def _item(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
    source, index = args
    if isinstance(index, torch.Tensor):
        rec.emit("gather", (source, index), result)
        return
    parts = index if isinstance(index, tuple) else (index,)
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        fill = (slice(None),) * (source.dim() - len(parts) + 1)
        parts = (*parts[:at], *fill, *parts[at + 1 :])
    ranges = [
        slice(*part.indices(size))
        for part, size in zip((*parts, *[slice(None)] * source.dim()), source.shape, strict=False)
    ]
    if tuple(result.shape) == tuple(source.shape):
        rec.same("slice", result, source)
    else:
        rec.emit(
            "slice", (source,), result, ranges=tuple((r.start, r.stop, r.step) for r in ranges)
        )


def _split(rec: Recorder, result: Any, args: Sequence[Any], keywords: Any) -> None:
    source, size = args[:2]
    axis = (args[2] if len(args) > 2 else keywords.get("dim", 0)) % source.dim()
    whole = [(0, n, 1) for n in source.shape]
    for number, part in enumerate(result):
        ranges = list(whole)
        ranges[axis] = (number * size, number * size + part.shape[axis], 1)
        rec.emit("slice", (source,), part, ranges=tuple(ranges))


def _linear(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
    rec.emit("linear", [a for a in args[:3] if a is not None], result)


def _rms_norm(rec: Recorder, result: torch.Tensor, args: Sequence[Any], keywords: Any) -> None:
    x, weight, eps = args[0], keywords["weight"], keywords["eps"]
    given = [x] if weight is None else [x, weight]
    rec.emit("rms_norm", given, result, eps=float(eps))


def _layer_norm(rec: Recorder, result: torch.Tensor, args: Sequence[Any], keywords: Any) -> None:
    x, (weight, bias, eps) = args[0], (keywords[name] for name in ("weight", "bias", "eps"))
    given = [t for t in (x, weight, bias) if t is not None]
    named = tuple(n for n, t in (("weight", weight), ("bias", bias)) if t is not None)
    rec.emit("layer_norm", given, result, eps=float(eps), vectors=named)


def _silu(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
    gate = torch.empty_like(result)
    rec.emit("sigmoid", args[:1], gate)
    rec.emit("mul", (args[0], gate), result)


def _clamp(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
    rec.emit("clamp", args[:1], result, low=float(args[1]), high=float(args[2]))


def _embedding(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
    tokens, table = args[:2]
    rec.emit("embedding", (table, tokens), result)


def _softmax(rec: Recorder, result: torch.Tensor, args: Sequence[Any], _: Any) -> None:
    if args[1] % result.dim() != result.dim() - 1:
        raise NotImplementedError("a softmax over another axis than the last")
    rec.emit("softmax", args[:1], result)


_RULES: dict[Any, _Rule] = {
    **dict.fromkeys((_T.add, _T.__add__, torch.add), _two("add")),
    _T.__radd__: _two("add", turned=True),
    **dict.fromkeys((_T.mul, _T.__mul__, torch.mul), _two("mul")),
    _T.__rmul__: _two("mul", turned=True),
    **dict.fromkeys((_T.sub, _T.__sub__, torch.sub), _two("sub")),
    **dict.fromkeys((torch.matmul, _T.matmul, _T.__matmul__), _two("matmul")),
    **dict.fromkeys(
        (_T.reshape, _T.view, _T.flatten, torch.flatten, _T.unsqueeze, _T.squeeze), _reshape
    ),
    _T.permute: _permute,
    _T.transpose: _transpose,
    torch.cat: _cat,
    torch.stack: _stack,
    _T.__getitem__: _item,
    **dict.fromkeys((_T.split, torch.split), _split),
    _F.linear: _linear,
    _F.rms_norm: _rms_norm,
    _F.layer_norm: _layer_norm,
    _F.embedding: _embedding,
    _F.silu: _silu,
    _F.gelu: _one("gelu"),
    **dict.fromkeys((_F.relu, torch.relu), _one("relu")),
    **dict.fromkeys((torch.sigmoid, _T.sigmoid), _one("sigmoid")),
    **dict.fromkeys((torch.tanh, _T.tanh), _one("tanh")),
    **dict.fromkeys((torch.softmax, _F.softmax, _T.softmax), _softmax),
    **dict.fromkeys((_T.clamp, torch.clamp), _clamp),
}
