"""The flight recorder comes back as it was written, or says what is wrong with it."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mobilepack.contract.reference import INDEX, TENSORS, Reference, record, sample_ids
from mobilepack.errors import UsageError
from tests.packages import SEQUENCES, toy_reference


def test_written_and_read_it_is_the_same(tmp_path: Path) -> None:
    reference = toy_reference(quantised=True)
    reference.write(tmp_path)
    again = Reference.read(tmp_path)
    assert again.index == reference.index
    assert set(again.rows) == {"fp32", "quantised", "floor"}
    for variant, rows in reference.rows.items():
        for field in ("sampled", "top_ids", "top_logits", "logsumexp", "next_logit"):
            np.testing.assert_array_equal(getattr(again.rows[variant], field), getattr(rows, field))
    assert again.length == len(again.rows["fp32"]) == sum(map(len, SEQUENCES.values()))
    assert again.offset("second") == len(SEQUENCES["first"])


def test_small_vocabularies_are_kept_whole_and_large_ones_evenly() -> None:
    assert sample_ids(4096) == tuple(range(4096))
    ids = sample_ids(151_936)
    assert len(set(ids)) == 1024
    assert ids[0] == 0
    assert ids[-1] < 151_936
    gaps = set(np.diff(ids).tolist())
    assert gaps <= {148, 149}


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(3, 40)),
        elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 7.0]),
    ),
    st.integers(1, 50),
)
def test_the_top_is_sorted_with_ties_by_lower_id(logits: np.ndarray, k: int) -> None:
    rows = record(logits, [-1] * len(logits), (0, 2), k)
    for n, row in enumerate(logits):
        expected = sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]
        assert rows.top_ids[n].tolist() == expected
        assert rows.top_logits[n].tolist() == [row[i] for i in expected]
        assert rows.logsumexp[n] == pytest.approx(np.log(np.exp(row).sum()), abs=1e-5)
        assert rows.sampled[n].tolist() == [row[0], row[2]]
    assert np.isnan(rows.next_logit).all()


def test_a_large_logit_does_not_overflow() -> None:
    rows = record(np.array([[1e4, 0.0, -1e4]], dtype=np.float32), [1], (0,))
    assert rows.logsumexp[0] == 1e4
    assert rows.next_logit[0] == 0.0


def test_a_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    toy_reference().write(tmp_path)
    whole = (tmp_path / TENSORS).read_bytes()
    (tmp_path / TENSORS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=TENSORS):
        Reference.read(tmp_path)
    (tmp_path / TENSORS).unlink()
    with pytest.raises(UsageError, match=TENSORS):
        Reference.read(tmp_path)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(UsageError, match=INDEX):
        Reference.read(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_damage_gets_past_our_errors(tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / INDEX).exists():
        toy_reference().write(tmp_path)
        (tmp_path / "whole").write_bytes((tmp_path / TENSORS).read_bytes())
    raw = bytearray((tmp_path / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(raw), 600) - 1))  # mostly the header
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    (tmp_path / TENSORS).write_bytes(raw)
    with contextlib.suppress(UsageError):
        Reference.read(tmp_path)


def test_rows_that_do_not_fit_the_index_are_all_named(tmp_path: Path) -> None:
    reference = toy_reference()
    rows = reference.rows["fp32"]
    bad = dataclasses.replace(
        rows,
        sampled=rows.sampled[:, :3],
        logsumexp=rows.logsumexp.astype(np.float64),  # type: ignore[arg-type]
        top_ids=rows.top_ids + 10_000,
        top_logits=np.full_like(rows.top_logits, np.inf),
    )
    with pytest.raises(UsageError) as caught:
        Reference(reference.index, {"fp32": bad}).write(tmp_path)
    for word in ("fp32.sampled", "fp32.logsumexp", "outside the vocabulary", "not finite"):
        assert word in caught.value.why
    assert not (tmp_path / TENSORS).exists()


def test_a_variant_without_rows_and_ids_outside_the_vocabulary_are_errors(tmp_path: Path) -> None:
    reference = toy_reference()
    index = reference.index.model_copy(update={"variants": ("fp32", "floor"), "vocab_size": 20})
    with pytest.raises(UsageError) as caught:
        Reference(index, reference.rows).write(tmp_path)
    assert "floor.sampled is missing" in caught.value.why
    assert "outside the vocabulary of 20" in caught.value.why
