"""The folder that ExecuTorch's Core ML delegate stores as one blob.

Layout (executorch 1.5.1, backends/apple/coreml/runtime/inmemoryfs): the files' bytes, then a JSON
document written backwards, so that it is read from the end: `{"nodes": [...]}`, each node with its
name, kind (0 file, 1 folder), `dataRegion` (offset and size from the start of the blob) and, for a
folder, `children` (name → index of the node). The last node is the root.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mobilepack.mil.files import Embedded, damaged, inner_path

LONGEST_INDEX = 1 << 24  # bytes of JSON; a package has a dozen files
DEEPEST = 32


def open_flat_directory(name: str, blob: memoryview) -> Embedded:
    """Return the files of a blob by their path below its root; nothing is copied.

    Raises:
        UsageError: The blob is no such folder, or is damaged.
    """
    nodes = _nodes(name, blob)
    files: dict[str, memoryview] = {}
    for path, node in _walk(name, nodes, len(nodes) - 1, "", 0):
        files[str(inner_path(name, path))] = _region(name, blob, node)
    return Embedded(name, files)


def flat_index(name: str, sizes: Mapping[str, int]) -> bytes:
    """Return what follows the files' bytes in a blob.

    Args:
        name: Of the root.
        sizes: Length of each file by its path, in the order in which their bytes come.
    """
    nodes: list[dict[str, Any]] = []
    offset = 0
    tree: dict[str, Any] = {}
    for path, size in sizes.items():
        *folders, file = path.split("/")
        here = tree
        for folder in folders:
            here = here.setdefault(folder, {})
        here[file] = len(nodes)
        nodes.append(_node(file, 0, {}, offset, size))
        offset += size
    _add_folder(name, tree, nodes)
    return json.dumps({"nodes": nodes}, separators=(",", ":")).encode()[::-1]


def _add_folder(name: str, tree: dict[str, Any], nodes: list[dict[str, Any]]) -> int:
    children = {
        child: inner if isinstance(inner, int) else _add_folder(child, inner, nodes)
        for child, inner in tree.items()
    }
    nodes.append(_node(name, 1, children, 0, 0))
    return len(nodes) - 1


def _node(name: str, kind: int, children: dict[str, int], offset: int, size: int) -> dict[str, Any]:
    region = {"offset": offset, "size": size}
    return {"children": children, "dataRegion": region, "kind": kind, "name": name}


def _nodes(name: str, blob: memoryview) -> list[Any]:
    text = bytes(blob[-LONGEST_INDEX:])[::-1].decode("utf-8", "replace")
    try:
        index, _ = json.JSONDecoder().raw_decode(text)
        nodes = index["nodes"]
    except (ValueError, TypeError, KeyError, RecursionError) as err:
        raise damaged(name, f"the delegate's index of files is not readable: {err}") from err
    if not isinstance(nodes, list) or not nodes:
        raise damaged(name, "the delegate's index of files is empty")
    return nodes


def _walk(
    name: str, nodes: list[Any], index: object, path: str, depth: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, node) of every file below a node."""
    if not isinstance(index, int) or not 0 <= index < len(nodes) or depth > DEEPEST:
        raise damaged(name, f"the delegate's index of files is damaged at {path or 'its root'!r}")
    node = nodes[index]
    children = node.get("children") if isinstance(node, dict) else None
    if not isinstance(children, dict):
        raise damaged(name, f"the delegate's index of files is damaged at {path or 'its root'!r}")
    if node.get("kind") == 0:
        yield path, node
    for child, number in children.items():
        yield from _walk(name, nodes, number, f"{path}/{child}".lstrip("/"), depth + 1)


def _region(name: str, blob: memoryview, node: dict[str, Any]) -> memoryview:
    region = node.get("dataRegion")
    offset = region.get("offset") if isinstance(region, dict) else None
    size = region.get("size") if isinstance(region, dict) else None
    whole = isinstance(offset, int) and isinstance(size, int) and min(offset, size) >= 0
    if not whole or not isinstance(offset, int) or not isinstance(size, int):
        raise damaged(name, "the delegate's index of files has a region without numbers")
    if offset + size > len(blob):
        raise damaged(name, f"a file ends at {offset + size}, the delegate's blob at {len(blob)}")
    return blob[offset : offset + size]
