"""The app's sources, checked as far as Linux can: names and types, format, project, versions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mobilepack.testing.swift import Swift
from tests.ios_demo import stubs
from tests.ios_demo.conftest import CORE, DEMO, provisioned, tools
from tests.provision import ROOT

__all__ = ["provisioned", "tools"]
DATA = ROOT / "tests/data/ios"
_SHIMS = ("Darwin", "os", "UIKit", "CoreML", "SwiftUI")
APP = sorted((DEMO / "App").glob("*.swift"))


@pytest.fixture(scope="module")
def modules(tools: Swift, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile HarnessCore, the stubs and the shims to modules; nothing is linked."""
    out = tmp_path_factory.mktemp("modules")
    core = sorted((CORE / "Sources/HarnessCore").glob("*.swift"))
    sources = {"HarnessCore": core}
    sources |= {name: [DATA / f"stubs/{name}.swift"] for name in ("ExecuTorch", "ExecuTorchLLM")}
    sources |= {name: [DATA / f"shims/{name}.swift"] for name in _SHIMS}
    for name, paths in sources.items():
        emit = ("-emit-module", "-module-name", name, "-o", str(out / f"{name}.swiftmodule"))
        words = ("-parse-as-library", "-suppress-warnings", "-I", str(out), *map(str, paths))
        done = tools.tool("swiftc", *emit, *words, folders=(ROOT, out))
        assert done.returncode == 0, done.stderr
    return out


def checked(tools: Swift, modules: Path, sources: list[Path], folder: Path) -> str:
    """Type-check sources against the modules; return what the compiler says."""
    words = ("-typecheck", "-swift-version", "5", "-parse-as-library", "-I", str(modules))
    folders = (ROOT, modules, folder)
    done = tools.tool("swiftc", *words, *map(str, sources), folders=folders)
    return done.stderr


@pytest.mark.slow
def test_the_app_s_names_and_types_are_right(tools: Swift, modules: Path, tmp_path: Path) -> None:
    assert checked(tools, modules, APP, tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "good", "bad", "said"),
    [
        ("ModuleEngine.swift", "loadMode: .mmap", "loadMode: .mapped", "no member 'mapped'"),
        ("ModuleEngine.swift", "Tensor<Int64>([Int64(position)]", "Tensor<Float>([position]", ""),
        ("Conversation.swift", "TextRunner(", "TextLLMRunner(", "cannot find 'TextLLMRunner'"),
        ("Conversation.swift", "isEchoEnabled", "echoEnabled", "no member 'echoEnabled'"),
        ("ChatView.swift", "model.startAgain()", "model.restart()", "no member 'restart'"),
        ("CoreMLEngine.swift", "contentsOf: compiled", "at: compiled", "incorrect argument label"),
    ],
)
def test_the_check_can_fail(
    tools: Swift, modules: Path, tmp_path: Path, file: str, good: str, bad: str, said: str
) -> None:
    text = (DEMO / "App" / file).read_text()
    assert good in text
    (tmp_path / file).write_text(text.replace(good, bad))
    sources = [tmp_path / path.name if path.name == file else path for path in APP]
    output = checked(tools, modules, sources, tmp_path)
    assert "error:" in output
    assert said in output


@pytest.mark.slow
def test_every_source_is_formatted(tools: Swift) -> None:
    paths = sorted(DEMO.rglob("*.swift"))
    words = ("lint", "--strict", "--configuration", str(DEMO / ".swift-format"))
    done = tools.tool("swift-format", *words, *map(str, paths), folders=(DEMO,))
    assert done.returncode == 0, done.stderr


def test_the_stubs_are_those_of_executorch_s_sources(tmp_path: Path) -> None:
    checkout = os.environ.get("MOBILEPACK_EXECUTORCH_SOURCES")
    if checkout is None:
        pytest.skip("MOBILEPACK_EXECUTORCH_SOURCES names no checkout of pytorch/executorch")
    for name, text in (("ExecuTorch", stubs.executorch(Path(checkout))),
                       ("ExecuTorchLLM", stubs.llm(Path(checkout)))):  # fmt: skip
        assert (stubs.STUBS / f"{name}.swift").read_text().endswith(text)


def test_the_stub_generator_reads_headers() -> None:
    header = """
NS_SWIFT_NAME(Thing)
@interface ETThing : NSObject
@property(nonatomic, getter=isOn) BOOL on;
- (BOOL)loadMethod:(NSString *)name error:(NSError **)error NS_SWIFT_NAME(load(_:));
- (instancetype)initWithPath:(NSString *)path count:(NSInteger)count;
- (BOOL)hidden NS_SWIFT_UNAVAILABLE("");
- (Unknown *)other;
@end"""
    assert list(stubs.interface(header, "Thing")) == [
        "var isOn: Bool { get { fatalError() } set {} }",
        "func load(_ name: String) throws -> Void { fatalError() }",
        "init(path path: String, count count: Int)",
    ]


def test_versions_are_the_ones_that_are_pinned() -> None:
    project = (DEMO / "project.yml").read_text()
    pinned = re.search(r'"executorch==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert pinned is not None
    assert f"branch: swiftpm-{pinned[1]}\n" in project
    assert f'MobilepackExecuTorch: "{pinned[1]}"' in project


def test_python_imports_none_of_it() -> None:
    code = "import mobilepack.testing.swift, sys; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
