"""Calibrated integers come back as they were written, for all that is made of the same numbers."""

from __future__ import annotations

from pathlib import Path

import torch

from mobilepack.models.compression.calibrated import Calibrated
from mobilepack.models.quantization import QuantisedRows, quantise, quantise_int4, quantised_rows
from tests.models.compression.test_pruning import Weights
from tests.models.networks import tiny_spec

GROUP = 32


class Shared(Weights):
    """Weights whose second block has the first one's `up`."""

    def identity(self, name: str) -> str:
        return super().identity(name.replace("layers.1.up", "layers.0.up"))


def odd(rows: torch.Tensor) -> QuantisedRows:
    """Return integers that plain rounding would not choose."""
    plain = quantise_int4(rows, GROUP)
    return QuantisedRows((plain.values + 1).clamp(max=7), (plain.scales * 2))


def test_what_is_written_in_pieces_is_read_in_others(tmp_path: Path) -> None:
    weights = Weights(tiny_spec("llama"))
    store, name = Calibrated(weights, tmp_path, GROUP), "layers.0.q.weight"
    whole = odd(weights[name])
    for start in range(0, len(weights[name]), 24):
        part = QuantisedRows(whole.values[start : start + 24], whole.scales[start : start + 24])
        store.write(name, start, part)
    found = quantised_rows(store, name, weights[name][5:40], 5, "int4", GROUP)
    assert torch.equal(found.values, whole.values[5:40])
    assert torch.equal(found.scales, whole.scales[5:40])
    other = quantised_rows(store, name, weights[name], 0, "int8", weights[name].shape[1])
    assert torch.equal(other.values, quantise(weights[name], "int8", 0).values)


def test_equal_parameters_have_equal_integers(tmp_path: Path) -> None:
    weights = Shared(tiny_spec("qwen3"))  # its head is the embedding
    store = Calibrated(weights, tmp_path, GROUP)
    pairs = (("layers.0.up.weight", "layers.1.up.weight"), ("head.weight", "embed.weight"))
    for written, read in pairs:
        whole = odd(weights[written])
        store.write(written, 0, whole)
        found = quantised_rows(store, read, weights[read], 0, "int4", GROUP)
        assert torch.equal(found.values, whole.values)
        assert store.owner(written) == store.owner(read)
    table = quantised_rows(store, "embed.weight", weights["embed.weight"], 0, "embedding4", GROUP)
    assert torch.equal(table.scales, odd(weights["head.weight"]).scales.half().float())
    down = "layers.1.down.weight"
    plain = quantised_rows(store, down, weights[down], 0, "int4", GROUP)
    assert torch.equal(plain.values, quantise_int4(weights[down], GROUP).values)


def test_a_store_is_complete_when_it_says_so(tmp_path: Path) -> None:
    store = Calibrated(Weights(tiny_spec("llama")), tmp_path, GROUP)
    assert not store.complete
    store.finish()
    assert Calibrated(Weights(tiny_spec("llama")), tmp_path, GROUP).complete
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())  # never in a package
