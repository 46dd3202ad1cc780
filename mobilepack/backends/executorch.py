"""ExecuTorch's program format, whoever's delegate it holds: the schema, and serialising it.

Importing `executorch.exir` runs its `__init__`, which loads torchao, torch.inductor and the edge
dialect: 4.5 s of CPU (ExecuTorch 1.5.1), more than lowering a model takes us. The schema and
serialiser modules need none of that, so their packages stand in empty while they are imported, and
are forgotten afterwards: a later `import executorch.exir` gets the real one.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_package_init(names: tuple[str, ...]) -> Iterator[None]:
    """Let submodules of packages be imported without what the packages' `__init__` does."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"no package {name}")
        stand_in = types.ModuleType(name)
        stand_in.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = stand_in
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)
            parent, _, child = name.rpartition(".")
            if hasattr(sys.modules.get(parent), child):
                delattr(sys.modules[parent], child)


with without_package_init(("executorch.exir",)):
    from executorch.exir import schema as et
    from executorch.exir._serialize import _program as serialise
    from executorch.exir._serialize.padding import aligned_size, pad_to
    from executorch.exir.scalar_type import ScalarType

__all__ = [
    "ScalarType",
    "aligned_size",
    "constant_method",
    "container",
    "et",
    "head_of",
    "serialise",
]

PAGE_BYTES = 4096


def head_of(program: et.Program, segment_bytes: int) -> bytes:
    """Serialise a program and its extended header: all bytes before the first segment."""
    flat = serialise._program_to_flatbuffer(
        program, constant_tensor_alignment=None, delegate_alignment=None
    )
    header_bytes = aligned_size(serialise._ExtendedHeader.EXPECTED_LENGTH, flat.max_alignment)
    program_bytes = header_bytes + len(flat.data)
    base = aligned_size(program_bytes, PAGE_BYTES)
    header = serialise._ExtendedHeader(
        program_size=program_bytes, segment_base_offset=base, segment_data_size=segment_bytes
    )
    data: bytes = serialise._insert_flatbuffer_header(
        flatbuffer_data=flat.data,
        magic_regex=r"ET[0-9a-zA-Z][0-9a-zA-Z]",
        header_data=pad_to(header.to_bytes(), header_bytes),
    )
    return data + bytes(base - len(data))


def constant_method(name: str, value: int | bool | tuple[int, ...]) -> et.ExecutionPlan:
    """Return a method that takes nothing and returns constants (the runners' metadata)."""
    items = value if isinstance(value, tuple) else (value,)
    values = [
        et.EValue(val=et.Bool(bool_val=item) if isinstance(item, bool) else et.Int(int_val=item))
        for item in items
    ]
    return et.ExecutionPlan(
        name=name,
        container_meta_type=container(0, len(items)),
        values=values,
        inputs=[],
        outputs=list(range(len(values))),
        chains=[et.Chain(inputs=[], outputs=[], instructions=[], stacktrace=None)],
        operators=[],
        delegates=[],
        non_const_buffer_sizes=[0, 0],
    )


def container(inputs: int, outputs: int) -> et.ContainerMetadata:
    """Describe the calling convention in torch's pytree notation (treespec protocol 1)."""
    leaf = '{"type": null, "context": null, "children_spec": []}'

    def tuple_of(count: int) -> str:
        children = ", ".join([leaf] * count)
        head = '{"type": "builtins.tuple", "context": "null", "children_spec": '
        return f"{head}[{children}]}}"

    no_keywords = '{"type": "builtins.dict", "context": "[]", "children_spec": []}'
    call = '{"type": "builtins.tuple", "context": "null", "children_spec": '
    return et.ContainerMetadata(
        encoded_inp_str=f"[1, {call}[{tuple_of(inputs)}, {no_keywords}]}}]",
        encoded_out_str=f"[1, {leaf if outputs == 1 else tuple_of(outputs)}]",
    )
