"""Stub modules `ExecuTorch` and `ExecuTorchLLM`, whose names come from ExecuTorch's own sources.

    python -m tests.ios_demo.stubs EXECUTORCH_CHECKOUT COMMIT

writes tests/data/ios/stubs/*.swift: declarations without bodies, so that a name, a label or a type
that the app uses wrongly is an error on Linux too. Whatever mentions a type that is not among them
is left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STUBS = Path(__file__).parents[1] / "data" / "ios" / "stubs"
_APPLE = "extension/apple/ExecuTorch/Exported"
_LLM = "extension/llm/apple/ExecuTorchLLM/Exported"
_ENUMS = ("ModuleLoadMode", "ModuleVerification", "DataType", "ShapeDynamism")
_KNOWN = {
    *("String", "Bool", "Int", "Double", "Float", "Void", "Self", "T", "Output", "Int64", "Set"),
    *("Value", "ValueConvertible", "ValueConstructible", "ValueSequenceConstructible", "Scalar"),
    *("Tensor", "AnyTensor", "Module", "MethodMetadata", "Config", "TextRunner", "Equatable"),
    *_ENUMS,
}
_TYPES = {
    "BOOL": "Bool",
    "NSInteger": "Int",
    "double": "Double",
    "void": "Void",
    "NSString *": "String",
    "NSArray<NSString *> *": "[String]",
    "NSSet<NSString *> *": "Set<String>",
    "ExecuTorchModuleLoadMode": "ModuleLoadMode",
    "ExecuTorchVerification": "ModuleVerification",
    "ExecuTorchMethodMetadata *": "MethodMetadata",
    "ExecuTorchLLMConfig *": "Config",
    "void (^)(NSString *token)": "((String) -> Void)?",
    "NS_NOESCAPE void (^)(ExecuTorchLLMConfig *)": "(Config) -> Void",
}


@dataclass(frozen=True)
class Argument:
    label: str
    type: str
    name: str


def without_comments(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", text)


# Objective-C headers


def interface(header: str, name: str) -> Iterator[str]:
    """Yield the Swift members of the interface that Swift calls `name`."""
    pattern = rf"NS_SWIFT_NAME\({name}\)[^@]*@interface (?P<class>\w+)[^\n]*\n(?P<body>.*?)@end"
    found = re.search(pattern, header, re.DOTALL)
    assert found is not None, name
    for statement in found["body"].split(";"):
        text = " ".join(statement.split())
        if "NS_UNAVAILABLE" in text or "NS_SWIFT_UNAVAILABLE" in text or "REFINED" in text:
            continue
        member = _property(text) if text.startswith("@property") else _method(text)
        if member:
            yield member


def _property(text: str) -> str | None:
    found = re.match(r"@property ?\((?P<how>[^)]*)\) (?P<type>.*?)(?P<name>\w+)$", text)
    if found is None or found["type"].strip() not in _TYPES:
        return None
    getter = re.search(r"getter ?= ?(\w+)", found["how"])
    name = getter[1] if getter else found["name"]
    access = "{ fatalError() }" if "readonly" in found["how"] else "{ get { fatalError() } set {} }"
    return f"var {name}: {_TYPES[found['type'].strip()]} {access}"


def _method(text: str) -> str | None:
    found = re.match(r"- ?\((?P<result>(?:[^()]|\([^()]*\))*)\) ?(?P<rest>.*)$", text)
    if found is None:
        return None
    named = re.search(r"NS_SWIFT_NAME\((\w+)\(((?:\w+:)*)\)\)", found["rest"])
    selector = re.sub(r"\b(NS_(?!NOESCAPE)\w+|__attribute__)\b.*$", "", found["rest"]).strip()
    parts = list(_parts(selector))
    throws = bool(parts) and parts[-1].type.replace(" ", "") == "NSError**"
    parts = parts[:-1] if throws else parts
    result = _TYPES.get(found["result"].replace("nullable ", "").strip())
    types = [_TYPES.get(part.type.replace("nullable ", "")) for part in parts]
    is_init = found["result"] == "instancetype"
    if None in types or (result is None and not is_init):
        return None
    first, labels = _names(selector, parts, is_init=is_init)
    if named:
        first, labels = named[1], [label for label in named[2].split(":") if label]
    given = ", ".join(
        f"{label} {part.name}: {_escaping(str(type_), part.type)}"
        for label, part, type_ in zip(labels, parts, types, strict=True)
    )
    if is_init:
        return f"init({given})"
    returned = "Void" if throws and result == "Bool" else result
    return f"func {first}({given}){' throws' if throws else ''} -> {returned} {{ fatalError() }}"


def _escaping(swift: str, objc: str) -> str:
    is_block = "(^)" in objc and not swift.endswith("?") and "NOESCAPE" not in objc
    return f"@escaping {swift}" if is_block else swift


def _parts(selector: str) -> Iterator[Argument]:
    for found in re.finditer(r"(\w+):\(((?:[^()]|\([^()]*\))*)\) ?(\w+)", selector):
        yield Argument(found[1], found[2].strip(), found[3])


def _names(selector: str, parts: list[Argument], *, is_init: bool) -> tuple[str, list[str]]:
    """Return base name and labels by Swift's rules of import."""
    if not parts:
        return re.sub(r"WithError$|:.*$", "", selector.split(":")[0]), []
    head, *others = [part.label for part in parts]
    first = re.match(r"(?P<base>.*?)With(?P<label>[A-Z]\w*)$", head)
    label = first["label"][0].lower() + first["label"][1:] if first else "_"
    if is_init:
        return "init", [label, *others]
    return (first["base"] if first else head), [label, *others]


def enumeration(header: str, name: str) -> str:
    pattern = rf"NS_ENUM\(\w+, (?P<type>\w+)\) \{{(?P<body>[^}}]*)\}} NS_SWIFT_NAME\({name}\);"
    found = re.search(pattern, header)
    assert found is not None, name
    cases = re.findall(rf"{found['type']}(\w+)", found["body"])
    listed = ", ".join(f"`{case[0].lower()}{case[1:]}`" for case in cases)
    return f"public enum {name} {{ case {listed} }}"


# Swift sources


def blocks(source: str, opening: str) -> Iterator[tuple[str, str]]:
    """Yield head and body of every block whose head begins with `opening`."""
    for found in re.finditer(rf"^{opening}[^{{\n]*", source, re.MULTILINE):
        start = source.index("{", found.start())
        yield found[0].strip(), source[start + 1 : _closing(source, start)]


def _closing(source: str, start: int) -> int:
    depth = 0
    for index in range(start, len(source)):
        depth += {"{": 1, "}": -1}.get(source[index], 0)
        if depth == 0:
            return index
    raise AssertionError(source[start : start + 80])


def members(body: str) -> Iterator[str]:
    """Yield declarations of a body, without what they do."""
    pattern = r"^ {2}(?:public |static |convenience )*(?:init|func|var)\b"
    for found in re.finditer(pattern, body, re.MULTILINE):
        end = body.find("{", found.start())
        declared = " ".join(body[found.start() : end].split())
        if set(re.findall(r"\b[A-Z]\w*", declared)) <= _KNOWN:
            yield declared


def _stub(declared: str) -> str:
    declared = declared.removeprefix("public ").replace("convenience ", "").replace("( ", "(")
    if declared.startswith("init"):
        return f"public {declared} {{}}"
    return f"public {declared} {{ fatalError() }}"


def write(checkout: Path, commit: str) -> None:
    head = f"// Generated by tests/ios_demo/stubs.py from pytorch/executorch {commit}.\n"
    STUBS.mkdir(parents=True, exist_ok=True)
    modules = {"ExecuTorch": executorch(checkout), "ExecuTorchLLM": llm(checkout)}
    for name, text in modules.items():
        (STUBS / f"{name}.swift").write_text(f"{head}import Foundation\n\n{text}")


def executorch(checkout: Path) -> str:
    folder = checkout / _APPLE
    read = {path.name: without_comments(path.read_text()) for path in folder.glob("*.*[ht]")}
    module, tensor = read["ExecuTorchModule.h"], read["ExecuTorchTensor.h"]
    overlay, values = read["ExecuTorch+Tensor.swift"], read["ExecuTorch+Value.swift"]
    lines = [enumeration(module if name[0] == "M" else tensor, name) for name in _ENUMS]
    lines += ["public final class AnyTensor {}", "public final class Value {}"]
    for name in ("MethodMetadata", "Module"):
        own = [_public(member) for member in interface(module, name)]
        own += [_stub(m) for _, body in blocks(_of(read), f"public extension {name}") for m in
                members(body)]  # fmt: skip
        lines.append(_class(name, own))
    scalars = re.findall(r"^extension (\w+): Scalar", overlay, re.MULTILINE)
    lines += ["public protocol Scalar {}", *(f"extension {name}: Scalar {{}}" for name in scalars)]
    (_, body), *_ = blocks(overlay, "public final class Tensor")
    own = [_stub(member) for member in members(body)]
    for _, body in blocks(overlay, "public extension Tensor"):
        own += [_stub(member) for member in members(body)]
    lines.append(_class("Tensor<T: Scalar>", sorted(set(own))))
    lines += [f"public protocol {name} {{}}" for name in
              re.findall(r"^public protocol (Value\w+)", values, re.MULTILINE)]  # fmt: skip
    lines += [
        f"{head} {{}}" for head, _ in blocks(values, "extension (?:Tensor|Value|AnyTensor): ")
    ]
    for head, body in blocks(values, "public extension Value "):
        own = [
            _stub(member)
            for member in members(body)
            if " init" not in f" {member}".partition("(")[0]
        ]
        lines.append(_class(head, own, keyword=""))
    return "\n".join(lines) + "\n"


def _of(read: dict[str, str]) -> str:
    return read["ExecuTorch+Module.swift"]


def llm(checkout: Path) -> str:
    folder = checkout / _LLM
    lines = []
    for name, file in (("Config", "Config"), ("TextRunner", "TextRunner")):
        header = without_comments((folder / f"ExecuTorchLLM{file}.h").read_text())
        lines.append(_class(name, [_public(member) for member in interface(header, name)]))
    return "\n".join(lines) + "\n"


def _public(member: str) -> str:
    return f"public {member} {{}}" if member.startswith("init") else f"public {member}"


def _class(name: str, own: list[str], keyword: str = "public final class ") -> str:
    inside = "\n".join(f"    {member}" for member in own)
    return f"{keyword}{name} {{\n{inside}\n}}"


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
