"""The exported graph, fed chunk by chunk, computes what the decoder computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mobilepack.models.exported_session import ExportedSession
from mobilepack.models.streaming import Lane, Quantisation, run_lanes
from mobilepack.models.tables import make_tables
from mobilepack.models.weights import open_model
from mobilepack.pipeline.export import export_decoder
from tests.models.checkpoints import make_checkpoint

IDS = tuple(range(3, 27))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("recipe", [Quantisation(), Quantisation(32, "4w", "fp16")])
def test_chunks_and_steps_give_what_all_positions_at_once_give(
    family: str, recipe: Quantisation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = make_checkpoint(tmp_path_factory.mktemp("exported") / family, family)
    model = open_model(folder)
    exported = export_decoder(model.spec, 32, 8)
    tables = make_tables(model.spec, 32)
    (whole,) = run_lanes(exported, model.weights, tables, [Lane(IDS, recipe)])
    session = ExportedSession(exported, model.weights, tables, recipe)
    # a second sequence in the same cache: what the first left there must not be seen
    for start in (0, 0):
        position = start
        for count in (8, 5, 1, 1, 8, 1):
            ids = np.array(IDS[position : position + count], dtype=np.int64)
            logits = torch.from_numpy(session(ids, position))
            position += count
            torch.testing.assert_close(logits, whole[position - 1], rtol=0, atol=2e-5)


@pytest.mark.slow
def test_the_values_of_a_call_can_be_watched(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = make_checkpoint(tmp_path_factory.mktemp("exported") / "llama")
    model = open_model(folder)
    exported = export_decoder(model.spec, 32, 8)
    session = ExportedSession(exported, model.weights, make_tables(model.spec, 32))
    seen: dict[str, tuple[int, ...]] = {}
    ids = np.array(IDS[:5], dtype=np.int64)
    session(ids, 0, lambda node, value: seen.update({node.name: tuple(value.shape)}))
    assert seen["embedding"] == (1, 5, 64)
    assert list(seen.values())[-1] == (1, 320)
