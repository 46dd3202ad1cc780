"""The embedding table of a program: its constants, and the kernel that looks tokens up."""

from __future__ import annotations

from collections.abc import Mapping

from mobilepack.backends.xnnpack.layout import Layout, Matrix
from mobilepack.backends.xnnpack.program import ProgramBuilder
from mobilepack.backends.xnnpack.storage import Alias, Storage
from mobilepack.contract.manifest import Recipe
from mobilepack.models.encodings import embedding_encoding

NAME = "embed.weight"


class EmbeddingTable:
    """One table, stored as the recipe says; a tied head may share its numbers."""

    def __init__(
        self,
        program: ProgramBuilder,
        storage: Storage,
        shape: tuple[int, int],
        recipe: Recipe,
        identities: Mapping[str, str],
    ) -> None:
        """Reserve the constants.

        Args:
            program: Under construction.
            storage: Where the table is counted, and told who else reads its bytes.
            shape: Rows and columns.
            recipe: How it is stored.
            identities: Per parameter, a name that tied parameters share.
        """
        self._program = program
        rows, columns = shape
        layout, total = program.layout, rows * columns
        self._encoding, group = embedding_encoding(columns, recipe.embedding, recipe.group_size)
        tied = [n for n, i in identities.items() if n != NAME and i == identities[NAME]]
        if self._encoding == "fp32":
            buffer = layout.constant(4 * total, Matrix(NAME, "fp32", 0, "values"))
            self._table: tuple[int, ...] = (program.constant([rows, columns], "float32", buffer),)
            storage.tally.add("fp32", total, 4 * total)
            alias = Alias("fp32", 0, buffer)
        else:
            alias = self._quantised(layout, storage, shape, group)
        for name in tied:
            storage.alias(name, alias)

    def _quantised(
        self, layout: Layout, storage: Storage, shape: tuple[int, int], group: int
    ) -> Alias:
        (rows, columns), encoding = shape, self._encoding
        eight, total = encoding == "int8", rows * columns
        width, dtype = (columns, "int8") if eight else (columns // 2, "uint8")
        scale_shape = [rows] if eight else [rows, columns // group]
        values = layout.constant(rows * width, Matrix(NAME, encoding, group, "values"))
        scale_bytes = (4 if eight else 2) * total // group
        scales = layout.constant(scale_bytes, Matrix(NAME, encoding, group, "scales"))
        self._table = (
            self._program.constant([rows, width], dtype, values),
            self._program.constant(scale_shape, "float32" if eight else "float16", scales),
        )
        label = "embedding int8 per row" if eight else f"embedding int4 group {group}"
        storage.tally.add(label, total, rows * width + scale_bytes)
        return Alias(encoding, group, values)

    def look_up(self, tokens: int, out: int) -> None:
        """Write the vectors of the tokens to `out`."""
        program = self._program
        if self._encoding == "fp32":
            minus_one, false = program.integer(-1), program.boolean(False)
            program.kernel(
                "aten::embedding", "out", *self._table, tokens, minus_one, false, false, out, out
            )
            return
        extra: tuple[int, ...] = ()
        if self._encoding == "int8":
            low, high = program.integer(-128), program.integer(127)
            kernel, overload = "embedding_byte", "out"
        else:
            low, high = program.integer(-8), program.integer(7)
            kernel, overload = "embedding_4bit", "dtype_out"
            extra = (program.null(),)  # the type of the result: float32
        program.kernel(
            f"quantized_decomposed::{kernel}",
            overload,
            *self._table,
            program.null(),
            low,
            high,
            tokens,
            *extra,
            out,
            out,
        )
