"""Constants as tensors: mapped where they are stored plainly, decompressed once where they are not.

A large constant exists once per program, however many functions use it. What is made of the file's
bytes (fp32 copies that compute fastest, decompressed weights) is kept while a budget lasts; beyond
it, it is made again for each use. Where that would be large, weights stay as they are stored, and a
block of rows is widened or decompressed at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from mobilepack.mil.compressed import Compressed
from mobilepack.mil.program import Constant, Stored
from mobilepack.mil.rows import Rows, rows_of
from mobilepack.mil.tensors import carried, stored_tensor, unreadable
from mobilepack.mil.types import TensorType

DEFAULT_BUDGET_BYTES = 4 << 30
# fp32 bytes of all weights up to which fp32 copies are made. They save a tenth of the time of a
# step, more than half of compressed weights'; above, a file of 1 GB must not exist a second time.
WIDEST_BYTES = 1 << 30
# Elements from which a constant is a weight: kept once and under the budget.
LARGE = 1 << 14
# fp32 bytes of a weight's rows that are converted and multiplied at a time. Measured on a
# [49152, 576] fp16 weight and one row of input, 2 MB of second-level cache: 256 KB 9.5 ms,
# 1 MB 7.9 ms, 2 MB 11.2 ms; the whole in fp32 7.4 ms.
BLOCK_BYTES = 1 << 20


@dataclass(slots=True)
class Weight:
    """A large constant.

    Attributes:
        load: Makes the tensor of the stored type from the file.
        mapped: Whether `load` is a view of the file and costs no memory.
        rows: Of a compressed weight that can be decompressed by rows.
    """

    type: TensorType
    store: WeightStore
    load: Callable[[], Tensor]
    mapped: bool
    rows: Rows | None = None
    _native: Tensor | None = None
    _full: Tensor | None = None

    def native(self) -> Tensor:
        """Return the weight in its declared type (fp16 as fp16)."""
        if self._native is None:
            tensor = self.load()
            if not self.mapped and not self.store.reserve(tensor.nbytes):
                return tensor
            self._native = tensor
        return self._native

    def full(self) -> Tensor:
        """Return the weight as operators compute with it (fp16 as fp32)."""
        if self._full is not None:
            return self._full
        native = self.native()
        full = carried(native, self.type.dtype)
        if full is native:
            return full
        if not self.store.keeps_half and self.store.reserve(full.nbytes):
            self._full = full
            if self._native is not None and not self.mapped:
                self.store.release(self._native.nbytes)
            self._native = None
        return full

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x @ weight.T + bias for a weight [out, in], whose further axes are of one.

        One that stays as it is stored is made fp32 and multiplied in blocks of rows.
        """
        count, columns = self.type.sizes[:2]
        if not self.store.keeps_half:
            return functional.linear(x, self.full().view(count, columns), bias)
        half = self._half()
        weight = None if half is None else half.view(count, columns)
        if weight is not None and weight.dtype == x.dtype:
            return functional.linear(x, weight, bias)
        most = min(max(BLOCK_BYTES // (4 * columns), 1), count)
        scratch = torch.empty(most, columns)
        parts = []
        for start in range(0, count, most):
            wide = scratch[: min(most, count - start)]
            if weight is not None:
                wide.copy_(weight[start : start + most])
            elif self.rows is not None:
                self.rows.read(start, wide)
            parts.append(functional.linear(x, wide))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return whole if bias is None else whole + bias

    def _half(self) -> Tensor | None:
        """Return the weight in its declared type; None where it is better read by rows."""
        if self.rows is None or self._native is not None:
            return self.native()
        size = 2 * self.type.elements
        if self.store.large or self.store.used_bytes + size > self.store.budget_bytes:
            return None
        return self.native()

    def look_up(self, index: Tensor) -> Tensor:
        """Return the slices of the first axis at `index` [n], as they are kept."""
        half = self._half() if self.store.keeps_half else None
        if self.store.keeps_half and half is None and self.rows is not None:
            wide = torch.empty(len(index), self.type.elements // self.type.sizes[0])
            for place, row in enumerate(index.tolist()):
                self.rows.read(row, wide[place : place + 1])
            return wide.reshape(-1, *self.type.sizes[1:])
        table = self.native() if self._full is None else self._full
        return table.index_select(0, index)


def share_bytes(budget_bytes: int, programs: int) -> int:
    """Return what each of several programs that run one after the other may take."""
    return budget_bytes if programs < 2 else min(budget_bytes, WIDEST_BYTES) // programs


@dataclass(slots=True)
class WeightStore:
    """The weights of one program.

    Attributes:
        budget_bytes: Private memory that weights may take; mapped files are not counted.
        keeps_half: Whether no fp32 copies are made, because they would take too much.
        large: Whether compressed weights stay compressed too, whatever the budget.
    """

    budget_bytes: int = DEFAULT_BUDGET_BYTES
    used_bytes: int = 0
    keeps_half: bool = False
    large: bool = False
    _known: dict[object, Weight] = field(default_factory=dict)

    def reserve(self, size: int) -> bool:
        """Take memory from the budget if there is enough."""
        if self.used_bytes + size > self.budget_bytes:
            return False
        self.used_bytes += size
        return True

    def release(self, size: int) -> None:
        """Give memory back."""
        self.used_bytes -= size

    def plan(self) -> None:
        """Decide how fp16 weights are kept, once all are known and before any is used."""
        full = sum(weight.type.elements * 4 for weight in self._known.values())
        self.large = full > WIDEST_BYTES
        self.keeps_half = self.large or full > self.budget_bytes

    def plain(self, constant: Constant) -> Weight:
        """Return the weight of a constant that is not compressed."""
        key = constant.key
        if key not in self._known:
            mapped = isinstance(constant.data, Stored) and not constant.type.dtype.is_sub_byte
            self._known[key] = Weight(constant.type, self, lambda: stored_tensor(constant), mapped)
        return self._known[key]

    def compressed(self, source: Compressed, output: int) -> Weight:
        """Return the weight of one output of a constexpr operator."""
        key = (source.key, output)
        if key not in self._known:
            kind = source.operation.outputs[output].type
            if not isinstance(kind, TensorType):
                raise unreadable(source.operation, f"its output is {kind}")

            def load() -> Tensor:
                return source.outputs()[output]

            self._known[key] = Weight(kind, self, load, mapped=False, rows=rows_of(source))
        return self._known[key]
