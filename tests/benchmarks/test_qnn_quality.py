"""The questions of the benchmark of QNN's recipes, and their answers as a model would say them."""

from __future__ import annotations

from benchmarks.qnn_quality import ROW, ROWS, questions_of, rows_of
from mobilepack.models.tokenizer import Tokenizer
from mobilepack.models.zoo import embedded_path
from mobilepack.models.zoo.tasks import normalise, tasks


def test_an_answer_ends_its_turn() -> None:
    tokenizer, items = Tokenizer.open(embedded_path()), tasks(2)
    found = questions_of(embedded_path(), 2)
    assert len(found) == len(items)
    for (asked, answer), item in zip(found, items, strict=True):
        assert answer[-1] in tokenizer.eos_ids
        assert normalise(tokenizer.decode(answer[:-1])) == normalise(item.answer)
        assert item.messages[-1].content in tokenizer.decode(asked)


def test_text_comes_in_whole_rows() -> None:
    rows = rows_of(Tokenizer.open(embedded_path()))
    assert [len(row) for row in rows] == [ROW] * ROWS
    assert len(set(rows)) == ROWS
