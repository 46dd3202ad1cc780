"""The bytes of a program file before its first segment: flatbuffer and extended header."""

from __future__ import annotations

from mobilepack.backends.executorch import et, head_of
from mobilepack.backends.xnnpack.layout import FileMap


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
    return head_of(program, layout.size)
