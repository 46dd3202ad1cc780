"""What is pruned is what the method says, and what is left computes as before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.contract.compression import Sparsity
from mobilepack.errors import UsageError
from mobilepack.models.compression.select import Selected, runs, with_vocabulary, without_layers
from mobilepack.models.compression.sparse import Sparse, prune_rows
from mobilepack.models.compression.width import Width, gates, kept_width, narrowed
from mobilepack.models.decoder import with_weights
from mobilepack.models.source import Source
from mobilepack.models.spec import DecoderSpec
from tests.models.networks import RandomWeights, feed, random_ids, relative_rms, tiny_spec


class Weights(RandomWeights):
    """Random weights that can count themselves."""

    def parameters(self) -> int:
        return sum(self[name].numel() for name in self if name != "head.weight" or not self.tied)


def logits(spec: DecoderSpec, weights: Source, ids: tuple[int, ...]) -> torch.Tensor:
    tensors = {name: weights.tensor(name) for name in weights.names()}
    return feed(with_weights(spec, len(ids), tensors), ids, (1,) * len(ids))


def test_wanda_prunes_the_lowest_scores_of_each_row() -> None:
    rows = torch.tensor([[1.0, -2.0, 3.0, -4.0], [4.0, 3.0, 2.0, 1.0]])
    norms = torch.tensor([10.0, 1.0, 1.0, 1.0])
    found = prune_rows(rows, norms, Sparsity(share=0.5))
    assert found.tolist() == [[1.0, 0.0, 0.0, -4.0], [4.0, 3.0, 0.0, 0.0]]
    found = prune_rows(rows, norms, Sparsity(share=0.5, zeros=1, of=2))
    assert found.tolist() == [[1.0, 0.0, 0.0, -4.0], [4.0, 0.0, 2.0, 0.0]]


@given(st.integers(0, 2**32 - 1), st.sampled_from([(0.5, 0, 0), (0.3, 0, 0), (0.5, 2, 4)]))
def test_what_is_kept_is_kept_exactly(seed: int, how: tuple[float, int, int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, norms = torch.randn(5, 32, generator=generator), torch.rand(32, generator=generator)
    sparsity = Sparsity(share=how[0], zeros=how[1], of=how[2])
    found = prune_rows(rows, norms, sparsity)
    assert ((found == rows) | (found == 0)).all()
    zeros = (found == 0).sum(1)
    assert (zeros == (16 if how[1] else int(32 * how[0]))).all()
    kept, gone = (rows.abs() * norms)[found != 0], (rows.abs() * norms)[found == 0]
    if not how[1]:
        scores = rows.abs() * norms
        lowest = torch.where(found != 0, scores, torch.inf).amin(1)
        highest = torch.where(found == 0, scores, -torch.inf).amax(1)
        assert (lowest >= highest).all()
    assert len(kept) + len(gone) == rows.numel()


def test_a_sparse_view_prunes_what_it_has_seen() -> None:
    spec = tiny_spec("llama")
    base = Weights(spec)
    sparse = Sparse(base, Sparsity(share=0.5))
    name = "layers.0.q.weight"
    assert torch.equal(sparse.tensor(name), base.tensor(name))
    sparse.see(name, torch.ones(base.shape(name)[1]))
    assert (sparse.tensor(name) == 0).float().mean() == 0.5
    assert torch.equal(sparse.rows(name, 3, 9), sparse.tensor(name)[3:9])
    assert sparse.identity(name) != base.identity(name)
    assert sparse.zero_share([name, "layers.0.o.weight"]) == pytest.approx(0.25)
    assert not sparse.takes("head.weight")
    assert not sparse.takes("layers.0.attn_norm.weight")


@given(st.lists(st.integers(0, 30), max_size=12))
def test_runs_give_back_every_index(indices: list[int]) -> None:
    assert [i for first, end in runs(indices) for i in range(first, end)] == indices


def test_dropping_a_block_is_going_round_it() -> None:
    spec = tiny_spec("llama", num_hidden_layers=3)
    base = Weights(spec)
    smaller, selection = without_layers(spec, {1})
    view = Selected(base, selection)
    around = Weights(spec)
    around.update({name: base[name] for name in base})
    for name in ("o", "down"):  # a block whose results are zero adds nothing
        around[f"layers.1.{name}.weight"] = torch.zeros_like(base[f"layers.1.{name}.weight"])
    ids = random_ids(spec, 9)
    assert relative_rms(logits(smaller, view, ids), logits(spec, around, ids)) <= 1e-6
    assert view.parameters() < base.parameters()


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_fewer_tokens_have_the_logits_they_had(family: str) -> None:
    spec = tiny_spec(family)
    base = Weights(spec)
    kept = tuple(range(0, spec.vocab_size, 3)) + tuple(
        i for i in (spec.bos_id, *spec.eos_ids) if i is not None and i % 3
    )
    kept = tuple(sorted(set(kept)))
    new_id = {old: new for new, old in enumerate(kept)}
    smaller, selection = with_vocabulary(spec, kept, new_id)
    view = Selected(base, selection)
    ids = tuple(kept[i * 5 % len(kept)] for i in range(7))
    found = logits(smaller, view, tuple(new_id[i] for i in ids))
    # the head's product is another one, so its sums may come in another order
    assert relative_rms(found, logits(spec, base, ids)[:, list(kept)]) <= 1e-6
    assert (view.identity("embed.weight") == view.identity("head.weight")) == spec.tied_head
    assert smaller.eos_ids == tuple(new_id[i] for i in spec.eos_ids)


def test_a_narrower_block_is_the_block_without_those_channels() -> None:
    spec = tiny_spec("llama", num_attention_heads=4, num_key_value_heads=2, intermediate_size=96)
    base = Weights(spec)
    generator = torch.Generator().manual_seed(0)
    importance = {
        name: torch.rand(base.shape(name)[1], generator=generator) for name in gates(spec)
    }
    width = kept_width(spec, 0.5, 32)
    assert width == Width(1, 64)
    smaller, selection, heads = narrowed(spec, importance, width)
    view = Selected(base, selection)
    masked = Weights(spec)
    masked.update({name: base[name].clone() for name in base})
    for name, scores in importance.items():
        unit = scores.shape[0] // 2 if name.endswith("o.weight") else 1
        kept = 1 if unit > 1 else width.ffn
        order = scores.view(-1, unit).sum(1).argsort(descending=True)[kept:]
        masked[name].view(len(masked[name]), -1, unit)[:, order] = 0
    ids = random_ids(spec, 9)
    assert relative_rms(logits(smaller, view, ids), logits(spec, masked, ids)) <= 1e-5
    assert [len(kept) for kept in heads] == [1] * len(spec.layers)


def test_width_is_rounded_in_favour_of_keeping() -> None:
    spec = tiny_spec("llama", num_attention_heads=4, num_key_value_heads=2, intermediate_size=96)
    assert kept_width(spec, 0.25, 32) == Width(2, 96)
    assert kept_width(spec, 0.4, 32) == Width(2, 64)


def test_a_family_without_gated_blocks_is_refused() -> None:
    spec = tiny_spec("llama")
    plain = tuple(replace(i, ffn=replace(i.ffn, gated=False)) for i in spec.layers)
    with pytest.raises(UsageError, match="width"):
        kept_width(replace(spec, layers=plain), 0.5, 32)
