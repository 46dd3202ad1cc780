"""The bytes of a program file before its first segment: flatbuffer and extended header."""

from __future__ import annotations

from mobilepack.backends.xnnpack.layout import FileMap
from mobilepack.backends.xnnpack.vendor import aligned_size, et, pad_to, serialise


def program_head(plans: list[et.ExecutionPlan], layout: FileMap) -> bytes:
    """Serialise the program and its extended header: all bytes before the first segment."""
    first = layout.constants[0]
    program = et.Program(
        version=0,
        execution_plan=plans,
        constant_buffer=[],
        backend_delegate_data=[],
        segments=[et.DataSegment(offset=offset, size=size) for offset, size in layout.segments],
        constant_segment=et.SubsegmentOffsets(
            segment_index=layout.constant_segment,
            offsets=[0, *(offset - first for offset in layout.constants)],
        ),
        mutable_data_segments=None,
        named_data=[
            et.NamedData(key=key, segment_index=index) for key, index in layout.named.items()
        ],
    )
    return serialised_head(program, layout.size)


def serialised_head(program: et.Program, segment_bytes: int) -> bytes:
    """Return all bytes before the first segment; `segment_bytes` is what comes after them."""
    flat = serialise._program_to_flatbuffer(
        program, constant_tensor_alignment=None, delegate_alignment=None
    )
    header_bytes = aligned_size(serialise._ExtendedHeader.EXPECTED_LENGTH, flat.max_alignment)
    program_bytes = header_bytes + len(flat.data)
    base = aligned_size(program_bytes, 4096)
    header = serialise._ExtendedHeader(
        program_size=program_bytes, segment_base_offset=base, segment_data_size=segment_bytes
    )
    data: bytes = serialise._insert_flatbuffer_header(
        flatbuffer_data=flat.data,
        magic_regex=r"ET[0-9a-zA-Z][0-9a-zA-Z]",
        header_data=pad_to(header.to_bytes(), header_bytes),
    )
    return data + bytes(base - len(data))
