"""(slow) The HTP emulator: its arithmetic is what we say, and both lowerings make one program."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from mobilepack.backends.qnn.probe import usable_sdk
from mobilepack.backends.qnn.request import LowerRequest
from tests.models.networks import RandomWeights, random_ids, tiny_spec

pytestmark = pytest.mark.slow

_PROGRAMS = (".phone.pte", ".pte")
_ROOT = Path(__file__).resolve().parents[3]


def emulated(name: str, folder: Path) -> Any:
    out = folder / "found.npz"
    argv = [sys.executable, "-m", "tests.backends.qnn.emulated", name, str(out)]
    environment = {**usable_sdk().environment(), "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(
        argv, env=environment, cwd=_ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(out)


def test_products_are_cut_off_where_we_say(tmp_path: Path) -> None:
    """To the integer but for roundings of exact halves; without the rule they are 2 to 7 beside."""
    found = emulated("products", tmp_path)
    for kind in ("4", "8", "block", "kv"):
        have, want = (found[f"{side}_{kind}"].astype(np.int64).ravel() for side in ("have", "want"))
        inside = (want > 0) & (want < 65535)
        assert inside.mean() > 0.5
        difference = np.abs(have - want)[inside]
        assert difference.max() <= 1
        assert difference.mean() <= 0.02


def test_floats_at_the_boundary_lose_nothing(tmp_path: Path) -> None:
    """All 65536 integers: quantised they are the nearest, dequantised they are the numbers."""
    found = emulated("boundary", tmp_path)
    assert (found["quantised"] == found["integers"]).all()
    np.testing.assert_allclose(found["dequantised"], found["numbers"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("precision", ["fp16", "16a4w"])
def test_both_lowerings_make_programs_that_compute_the_same(tmp_path: Path, precision: Any) -> None:
    """With the same encodings; what is left is half a step in each norm, which one rounds away.

    The limit is verify's: twice the model's floor, its 16-bit roundings made at random.
    """
    asked = request(tmp_path, precision)
    for name in ("fast", "reference"):
        of_name = replace(asked, out=tmp_path / f"{name}.pte", lowering=name)  # type: ignore[arg-type]
        of_name.save(tmp_path / f"{name}.request")
    found = emulated("lowerings", tmp_path)
    one, other = found["fast"], found["reference"]
    limit = 1e-6 if precision == "fp16" else 2 * _distance(found, "quantised", "floor")
    assert _apart(one, other) <= limit <= 1e-3
    assert (one.argmax(1) == other.argmax(1)).all()


def test_a_model_in_several_contexts_computes_the_same_integers(tmp_path: Path) -> None:
    asked = request(tmp_path, "16a4w")
    for name, limit in (("whole", 10**9), ("cut", 1)):
        replace(
            asked,
            out=tmp_path / f"{name}.pte",
            phone_out=tmp_path / f"{name}.phone.pte",
            context_limit_bytes=limit,
        ).save(tmp_path / f"{name}.request")
    found = emulated("shards", tmp_path)
    assert (int(found["whole_shards"]), int(found["cut_shards"])) == (1, 2)
    assert (found["whole"] == found["cut"]).all()
    assert (found["whole_hashes"] == found["cut_hashes"]).all()
    assert len(set(found["whole_hashes"])) == 3
    for name in ("whole", "cut"):  # the tables and matrices are there once, not once per method
        phone, emulator = ((tmp_path / f"{name}{end}").stat().st_size for end in _PROGRAMS)
        assert phone < emulator


def request(folder: Path, precision: Any) -> LowerRequest:
    spec = tiny_spec()
    save_file(dict(RandomWeights(spec)), folder / "weights.safetensors")
    rows = tuple(random_ids(spec, 32, seed) for seed in (0, 1))
    return LowerRequest(
        spec=spec,
        weights=folder / "weights.safetensors",
        shared={},
        precision=precision,
        max_seq_len=32,
        prefill_tokens=8,
        soc_model="SM8650",
        heads="together",
        rows=rows,
        passages=(("first", rows[0][:9]),),
        metadata={"get_vocab_size": spec.vocab_size},
        out=folder / "model.pte",
    )


def _distance(found: Any, one: str, other: str) -> float:
    return _apart(found[f"fast_{one}"], found[f"fast_{other}"])


def _apart(one: Any, other: Any) -> float:
    """Return 1 - cosine of the rows that are furthest apart."""
    cosine = (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return float(1 - cosine.min())
