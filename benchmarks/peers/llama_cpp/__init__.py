"""llama.cpp through llama-cpp-python, compiled here for this very processor."""

from __future__ import annotations

from pathlib import Path

from benchmarks.environments import Environment
from benchmarks.peers.base import BuildRequest, BuildStep, Peer

_FILE = "model-q4_0.gguf"
# GGML_NATIVE compiles for this processor: AVX-512 and AMX where present. The multimodal
# library is not needed. The header mends AMX under older gcc; it says how.
_COMMON = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAVA_BUILD=OFF")
_MENDED = f"-DCMAKE_CXX_FLAGS=-include {Path(__file__).with_name('gcc_amx.h')}"
_NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


def _environment(name: str, *options: str) -> Environment:
    return Environment(
        name=name,
        requirements=("llama-cpp-python==0.3.36", "gguf==0.19.0", "numpy==2.4.6"),
        from_source=("llama-cpp-python",),
        # uv keeps compiled wheels apart by these settings, but not by variables.
        build_settings={"cmake.args": ";".join((*_COMMON, *options))},
    )


def _plan(python: Path, request: BuildRequest) -> tuple[BuildStep, ...]:
    command = (
        str(python),
        *("-m", "benchmarks.peers.llama_cpp.convert"),
        str(request.checkpoint),
        str(request.output / _FILE),
        *("--threads", str(request.threads)),
    )
    return (BuildStep("convert to GGUF and quantise to Q4_0", command),)


def _peer(name: str, environment: Environment) -> Peer:
    return Peer(
        name=name,
        environment=environment,
        versions_of=("llama-cpp-python", "gguf", "numpy"),
        child="benchmarks.peers.llama_cpp.child",
        plan=_plan,
        program=lambda output: output / _FILE,
        weighed=lambda output: (output / _FILE,),
        flash_attention_choices=(True, False),
    )


PEERS = (
    _peer("llama.cpp", _environment("llama_cpp", _MENDED)),
    # AMX is a server feature that no phone has; this one says what it contributes.
    _peer(
        "llama.cpp-no-amx",
        _environment(
            "llama_cpp_no_amx",
            f"-DCMAKE_CXX_FLAGS={_NO_AMX}",
            f"-DCMAKE_C_FLAGS={_NO_AMX}",
        ),
    ),
)
