"""Change what an Android library asks its loader for, so that glibc's can load it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_LOAD, _DYNAMIC, _NOTE = 1, 2, 4
_STRTAB, _SYMTAB, _STRSZ, _GNU_HASH = 5, 6, 10, 0x6FFFFEF5
# VERSYM, VERDEF, VERDEFNUM, VERNEED, VERNEEDNUM (gABI): bionic's versions are not glibc's names.
_VERSIONS = (0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF)
_IGNORED = 0x6000DEAD  # of the range that is the operating system's; glibc looks at none of these
_ALIGNMENT = 0x10000


def carry(source: Path, target: Path, renames: Mapping[str, str]) -> list[str]:
    """Write a copy whose imports have no versions and, some of them, other names.

    A longer string table goes to the file's end, in the place of a note's segment.

    Returns:
        The names of all imports, as they are now.
    """
    data = bytearray(source.read_bytes())
    segments = _segments(data)
    dynamic = next(s for s in segments.values() if s[0] == _DYNAMIC)
    tags = _tags(data, dynamic)
    names = bytearray(_at(data, segments, tags[_STRTAB][1], tags[_STRSZ][1]))
    where: dict[str, int] = {}
    for new in dict.fromkeys(renames.values()):
        where[new] = len(names)
        names += new.encode() + b"\0"
    symbols = _offset(segments, tags[_SYMTAB][1])
    imports = []
    for index in range(1, _first_defined(data, segments, tags[_GNU_HASH][1])):
        place = symbols + index * _SYMBOL.size
        fields = _SYMBOL.unpack_from(data, place)
        old = names[fields[0] : names.index(0, fields[0])].decode()
        if fields[3] == 0 and old in renames:
            struct.pack_into("<I", data, place, where[renames[old]])
        imports += [renames.get(old, old)] if fields[3] == 0 else []
    address = _append(data, segments, names)
    struct.pack_into("<QQ", data, tags[_STRTAB][0], _STRTAB, address)
    struct.pack_into("<QQ", data, tags[_STRSZ][0], _STRSZ, len(names))
    for tag in _VERSIONS:
        if tag in tags:
            struct.pack_into("<Q", data, tags[tag][0], _IGNORED)
    target.write_bytes(data)
    return imports


def _segments(data: bytearray) -> dict[int, tuple[int, ...]]:
    """Return the program headers by their place in the file."""
    header = _HEADER.unpack_from(data)
    start, count = header[4], header[9]
    places = (start + n * _SEGMENT.size for n in range(count))
    return {place: _SEGMENT.unpack_from(data, place) for place in places}


def _offset(segments: dict[int, tuple[int, ...]], address: int) -> int:
    for kind, _, offset, start, _, size, _, _ in segments.values():
        if kind == _LOAD and start <= address < start + size:
            return offset + address - start
    raise ValueError(f"{address:#x} is in no segment")


def _at(
    data: bytearray, segments: dict[int, tuple[int, ...]], address: int, size: int
) -> bytearray:
    offset = _offset(segments, address)
    return data[offset : offset + size]


def _tags(data: bytearray, dynamic: tuple[int, ...]) -> dict[int, tuple[int, int]]:
    """Return place and value of every entry of the dynamic section."""
    found = {}
    for place in range(dynamic[2], dynamic[2] + dynamic[5], 16):
        tag, value = struct.unpack_from("<QQ", data, place)
        found.setdefault(tag, (place, value))
    return found


def _first_defined(data: bytearray, segments: dict[int, tuple[int, ...]], address: int) -> int:
    """Return the first symbol that the hash table covers; imports come before it."""
    first: int = struct.unpack_from("<I", data, _offset(segments, address) + 4)[0]
    return first


def _append(data: bytearray, segments: dict[int, tuple[int, ...]], table: bytes) -> int:
    """Add a read-only segment at the end; return its address."""
    loads = [place for place, segment in segments.items() if segment[0] == _LOAD]
    place = next(p for p, s in segments.items() if s[0] == _NOTE and p > max(loads))
    end = max(segments[p][3] + segments[p][6] for p in loads)
    address = -(-end // _ALIGNMENT) * _ALIGNMENT
    data += bytes(-len(data) % _ALIGNMENT)
    size = len(table)
    entry = (_LOAD, 4, len(data), address, address, size, size, _ALIGNMENT)
    _SEGMENT.pack_into(data, place, *entry)
    data += table
    return address
