"""One line says what was done to a package's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobilepack.cli.compression import compression_text
from mobilepack.contract.compression import Compression, CompressionReport, Sparsity
from mobilepack.contract.manifest import Manifest
from tests.packages import toy_package


def _manifest(root: Path, wanted: Compression, **done: Any) -> Manifest:
    manifest = Manifest.read(toy_package(root) / "manifest.json")
    report = CompressionReport(
        **{
            "parameters_before": 2000,
            "tokens_before": 61,
            "tokens": 61,
            "layers_before": 4,
            "layers": 4,
            **done,
        }
    )
    plan = manifest.plan.model_copy(update={"compression": wanted})
    return manifest.model_copy(update={"plan": plan, "compression": report})


def test_it_names_everything_that_was_done(tmp_path: Path) -> None:
    wanted = Compression(
        vocabulary_sha256="0",
        dropped_layers=(1,),
        width=0.25,
        sparsity=Sparsity(share=0.5),
        calibration="gptq",
    )
    done = {
        "tokens": 40,
        "layers": 3,
        "kept_kv_heads": ((0, 1),) * 3,
        "kept_ffn_channels": (64,) * 3,
        "zero_share": 0.46,
        "text_tokens": 16384,
    }
    assert compression_text(_manifest(tmp_path / "p", wanted, **done)) == (
        "40 of 61 tokens, 3 of 4 blocks, 2 key/value heads and 64 feed-forward channels per block,"
        " 46% of the linear weights zero, integers by gptq on 16,384 tokens, 50% of the parameters"
    )


def test_nothing_done_is_nothing_said(tmp_path: Path) -> None:
    assert compression_text(Manifest.read(toy_package(tmp_path / "p") / "manifest.json")) == ""
