"""Tasks are answered through the program; lm-eval's rules are kept to the token."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mobilepack.commands.answering import AnsweringModel, answering, by_context, can_rewind
from mobilepack.commands.build import BuildOptions, build
from mobilepack.commands.evaluate import EvalOptions, evaluate
from mobilepack.commands.lm_tasks import LmEval, LmEvalOptions
from mobilepack.commands.pocket import held_out, held_out_rows, run_pocket
from mobilepack.contract.evaluation import Evaluation
from mobilepack.contract.package import open_package
from mobilepack.errors import MissingError, UsageError
from mobilepack.harness.runner import Logits, TokenArray
from mobilepack.harness.scoring import score
from mobilepack.harness.talk import End, Request, Score, Scores, Token
from mobilepack.models.zoo import embedded_path
from mobilepack.pipeline.plan import Choices
from mobilepack.testing import ToyModel
from tests.commands.test_chat import FakeSession
from tests.packages import VOCAB, toy_package

DATA = Path(__file__).resolve().parent.parent / "data" / "lm_eval"


class ScoringSession(FakeSession):
    """Generates and scores with the toy model in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Score] = []

    def score(self, asked: Score) -> Scores:
        self.asked.append(asked)
        return score(asked, self.model, 16)

    def generate(self, request: Request) -> Generator[Token | End, None, None]:
        return super().generate(request)


@pytest.fixture
def toy(tmp_path: Path) -> tuple[AnsweringModel, ScoringSession]:
    session = ScoringSession()
    package = open_package(toy_package(tmp_path / "p"))
    return AnsweringModel(package, session), session


Toy = tuple[AnsweringModel, ScoringSession]


def test_what_two_contexts_share_is_fed_once(toy: Toy) -> None:
    model, session = toy
    first = model.scores((1, 5, 6, 7), ((8,),))
    again = model.scores((1, 5, 6, 7), ((8,),))
    model.scores((1, 5, 9), ((8, 4), (3,)))
    assert [(asked.position, asked.token_ids) for asked in session.asked] == [
        (0, (1, 5, 6, 7)),
        (3, (7,)),
        (2, (9,)),
    ]
    assert first == again
    assert model.fed_tokens == 4 + 1 + 1 + 1


def test_an_answer_ends_at_a_stop_text_and_the_context_stays_cached(toy: Toy) -> None:
    model, session = toy
    free, ids = model.answer((1, 5, 6), 8)
    assert len(ids) == 8 or session.requests
    stop = free[1]
    text, _ = model.answer((1, 5, 6), 8, (stop,))
    assert free.startswith(text)
    assert stop in text
    assert session.requests[-1].position == 2


class Recurrent(ToyModel):
    """A toy model with one state instead of one per position."""

    def __call__(self, tokens: TokenArray, position: int) -> Logits:
        if position:
            self._states[position - 1] = self._last
        logits = super().__call__(tokens, position)
        self._last = self._states[position + len(tokens) - 1]
        return logits


def test_a_program_that_cannot_rewind_is_known_and_fed_from_the_start(
    toy: Toy, tmp_path: Path
) -> None:
    model, session = toy
    assert can_rewind(session)
    expected = model.scores((1, 5, 6), ((8, 4), (3, 2)))
    other = ScoringSession()
    other.model = Recurrent(VOCAB)
    assert not can_rewind(other)
    package = open_package(toy_package(tmp_path / "recurrent"))
    careful = AnsweringModel(package, other, rewinds=False)
    assert careful.scores((1, 5, 6), ((8, 4), (3, 2))) == expected
    assert careful.scores((1, 5, 7), ((8, 4),)) == model.scores((1, 5, 7), ((8, 4),))
    assert careful.answer((1, 5, 6), 6) == model.answer((1, 5, 6), 6)
    assert all(asked.position == 0 for asked in other.asked)


def test_contexts_come_sorted_with_all_their_continuations() -> None:
    pairs = {0: ((2, 1), (5,)), 1: ((1,), (6,)), 2: ((2, 1), (7,))}
    assert list(by_context(pairs)) == [((1,), {1: (6,)}), ((2, 1), {0: (5,), 2: (7,)})]


def test_the_pocket_set_runs_on_any_package(toy: Toy) -> None:
    model, _ = toy
    told: list[float] = []
    rows = run_pocket(model, 1, lambda what, share: told.append(share))
    assert [row.task for row in rows][:2] == ["pocket", "pocket/add"]
    assert rows[0].samples == sum(row.samples for row in rows[1:-1])
    (unasked,) = (row for row in rows if row.status == "not run")
    assert unasked.task == "pocket/story"
    assert "565 tokens" in unasked.reason
    assert rows[-1].task == "pocket/held-out"
    assert rows[-1].metrics[0].value > 0
    assert all(0 <= share < 1 for share in told)


def test_rows_of_text_fit_the_cache(toy: Toy) -> None:
    model, _ = toy
    rows = held_out_rows(model, 2)
    assert {len(row) for row in rows} == {model.room}


def test_names_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    harness = LmEval(LmEvalOptions(include=DATA))
    harness.check(["pocket_choice", "hellaswag", "mmlu"])
    with pytest.raises(UsageError, match="pocket_choice"):
        harness.check(["pocket_choise"])
    with pytest.raises(UsageError, match="--data"):
        LmEval(LmEvalOptions(data=tmp_path / "none"))


SURVEYS = (
    *("hellaswag", "truthfulqa_mc2", "winogrande", "commonsense_qa", "piqa", "openbookqa"),
    *("boolq", "arc_easy", "arc_challenge", "mmlu", "gsm8k", "minerva_math"),
)


def test_every_set_of_the_surveys_has_its_name_here() -> None:
    LmEval(LmEvalOptions()).check(SURVEYS)


@contextmanager
def _loaded(package: Path) -> Generator[AnsweringModel, None, None]:
    with answering(open_package(package), threads=1, timeout_s=120) as model:
        yield model


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded model in fp32, with chunks that a context needs several of."""
    choices = Choices(linear="fp32", max_seq_len=96, prefill_chunk=40)
    out = tmp_path_factory.mktemp("fp32")
    return build(BuildOptions(out=out, choices=choices))[0].folder


PAIRS = (
    ("The capital of France is", " Paris"),
    ("The capital of France is", " Paris, and it is big."),
    ("The capital of France is ", "Seoul"),  # the space moves to the continuation
    ("", "Once upon a time"),
    ("The little fox went home. " * 24, " Then it slept."),  # longer than the cache
)


@pytest.mark.slow
def test_log_likelihoods_are_those_of_transformers(fp32: Path) -> None:
    """fp32 programs differ from eager by 1e-5 of the logits' spread; a sum of ten by 1e-4."""
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.utils import Collator  # noqa: F401 - the library is there
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mobilepack.commands.lm_harness import PackagedLM

    eager = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32).eval()
    theirs = AutoTokenizer.from_pretrained(embedded_path())

    def reference(context: list[int], continuation: list[int]) -> tuple[float, bool]:
        # lm_eval 0.4.11, HFLM._loglikelihood_tokens: cut to the left, feed all but the last
        window = torch.tensor([[*context, *continuation][-97:][:-1]])
        with torch.no_grad():
            rows = eager(window).logits[0, -len(continuation) :].log_softmax(-1)
        target = torch.tensor(continuation)
        chosen = rows.gather(1, target[:, None]).sum()
        return float(chosen), bool((rows.argmax(-1) == target).all())

    def split(context: str, continuation: str) -> tuple[list[int], list[int]]:
        if not context:
            return [1], theirs.encode(continuation, add_special_tokens=False)
        spaces = len(context) - len(context.rstrip())
        head = context.rstrip()
        whole = theirs.encode(head + context[len(head) :][:spaces] + continuation)
        return theirs.encode(head), whole[len(theirs.encode(head)) :]

    with _loaded(fp32) as model:
        lm = PackagedLM(model, lambda what, share: None)
        requests = [Instance("loglikelihood", {}, pair, 0) for pair in PAIRS]
        found = lm.loglikelihood(requests)
        for pair, (value, greedy) in zip(PAIRS, found, strict=True):
            expected, expected_greedy = reference(*split(*pair))
            assert value == pytest.approx(expected, abs=1e-4), pair
            assert greedy == expected_greedy, pair
        text = "Once upon a time there was a fox. " * 20
        (rolling,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
        ids = [1, *theirs.encode(text)]
        windows = [(ids[at : at + 1], ids[at + 1 : at + 97]) for at in range(0, len(ids) - 1, 96)]
        if len(windows[-1][1]) < 96:  # the last window looks back over what it has room for
            last = len(windows[-1][1])
            windows[-1] = (ids[-last - (97 - last) : -last], ids[-last:])
        total = sum(reference(*window)[0] for window in windows)
        assert rolling == pytest.approx(total, abs=1e-3)


@pytest.mark.slow
def test_perplexity_and_answers_are_those_of_transformers(fp32: Path) -> None:
    import math

    import torch
    from transformers import AutoModelForCausalLM

    from mobilepack.models.zoo.evaluate import perplexity

    eager = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32).eval()
    with _loaded(fp32) as model:
        rows = torch.tensor(held_out_rows(model, 4))
        found = held_out(model, 4, lambda what, share: None).metrics[0].value
        expected = perplexity(eager, rows)
        assert math.log(found) == pytest.approx(math.log(expected), abs=1e-5)
        context = model.prompt("What is 7 + 5?")
        _, ids = model.answer(context, 8)
        made = eager.generate(torch.tensor([context]), max_new_tokens=8, do_sample=False)
        assert ids == tuple(i for i in made[0, len(context) :].tolist() if i != 2)


@pytest.mark.slow
def test_lm_eval_runs_its_tasks_through_the_program(fp32: Path, tmp_path: Path) -> None:
    """Multiple choice, answers and whole texts, with the real library and data of our own."""
    out = tmp_path / "eval.json"
    names = ("pocket_choice", "pocket_until", "pocket_rolling", "hellaswag")
    options = EvalOptions(
        tasks=names,
        lm_eval=LmEvalOptions(data=DATA, include=DATA, offline=True),
        threads=1,
        out=out,
    )
    result = evaluate(fp32, options)
    record = Evaluation.read(out)
    assert record == Evaluation.read(result.folder / "eval.json") == result.evaluation
    by_name = {row.task: row for row in record.tasks}
    values = {n: {m.name: m.value for m in row.metrics} for n, row in by_name.items()}
    assert values["pocket_choice"]["acc"] >= 3 / 7
    assert by_name["pocket_choice"].samples == 7
    assert values["pocket_until"]["exact_match"] >= 0.0
    assert 1 < values["pocket_rolling"]["word_perplexity"] < 20
    assert by_name["hellaswag"].status == "not run"
    assert "Rowan/hellaswag" in by_name["hellaswag"].reason
    with pytest.raises(MissingError, match="hellaswag"):
        result.raise_if_missing()
    assert json.loads(out.read_text())["versions"]["lm-eval"]
