"""Whatever happens to the child process is a report with a name and a log, never our crash."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mobilepack.contract.run_plan import RunPlan, Teacher
from mobilepack.errors import RunFailedError
from mobilepack.harness.base import Limits, Progress
from mobilepack.harness.host import HostHarness, HostSession, discover
from mobilepack.harness.talk import End, Request, Token, parse_event
from mobilepack.harness.watch import last_words

PLAN = RunPlan(
    max_seq_len=8, prefill_chunk=8, items=(Teacher(name="t", token_ids=(1,), calls=(1,)),)
)
LOADED = '{"event":"loaded","load_ns":1,"threads":1}'
ITEM = '{"event":"item","item":"deep prefill","done":0,"total":1}'
REQUEST = Request(
    token_ids=(1,),
    position=0,
    max_new_tokens=4,
    stop_ids=(),
    temperature=0.0,
    top_p=1.0,
    seed=0,
)


def _child(tmp_path: Path, code: str) -> tuple[str, ...]:
    """Return the command of a child that plays its part as `code` says."""
    path = tmp_path / "child.py"
    lines = "import json, os, sys, time\ndef say(line): print(line, flush=True)\n"
    path.write_text(f"{lines}LOADED, ITEM = {LOADED!r}, {ITEM!r}\n{code}\n")
    return (sys.executable, "-S", str(path))


def _fails(tmp_path: Path, code: str, limits: Limits | None = None) -> RunFailedError:
    harness = HostHarness(_child(tmp_path, code))
    with pytest.raises(RunFailedError) as caught:
        harness.run(tmp_path, PLAN, log=tmp_path / "log.txt", limits=limits or Limits())
    assert str(tmp_path / "log.txt") in caught.value.next
    return caught.value


def test_there_is_one_host() -> None:
    assert [device.kind for device in discover()] == ["host"]
    assert HostHarness().device.state == "ready"


def test_a_segfault_is_named_with_what_was_running(tmp_path: Path) -> None:
    code = "say(LOADED); say(ITEM); os.write(2, b'kernel went away\\n'); os.kill(os.getpid(), 11)"
    error = _fails(tmp_path, code)
    assert error.code == "runtime-died"
    assert "running deep prefill" in error.what
    assert "killed by SIGSEGV" in error.why
    assert "kernel went away" in error.why


def test_death_before_the_program_is_loaded_is_named(tmp_path: Path) -> None:
    error = _fails(tmp_path, "os.write(2, b'out of memory'); sys.exit(9)")
    assert "loading the program" in error.what
    assert "exit status 9" in error.why
    assert "out of memory" in error.why


def test_what_the_runtime_refuses_is_quoted(tmp_path: Path) -> None:
    code = """say(LOADED); say('{"event":"failed","why":"error 0x14"}'); sys.exit(1)"""
    error = _fails(tmp_path, code)
    assert error.code == "runtime-failed"
    assert "error 0x14" in error.why


def test_a_child_that_hangs_is_stopped(tmp_path: Path) -> None:
    error = _fails(tmp_path, "time.sleep(60)", Limits(load_s=0.3))
    assert error.code == "run-timeout"
    assert "loading the program" in error.what
    error = _fails(tmp_path, "say(LOADED); say(ITEM); time.sleep(60)", Limits(run_s=3))
    assert error.code == "run-timeout"
    assert "deep prefill" in error.what


def test_garbage_is_not_believed(tmp_path: Path) -> None:
    error = _fails(tmp_path, "say('hello')")
    assert error.code == "run-garbled"
    assert "hello" in error.why


def test_a_child_that_ends_well_without_results_is_still_an_error(tmp_path: Path) -> None:
    error = _fails(tmp_path, "say(LOADED); sys.exit(0)")
    assert error.code == "no-results"


def test_a_session_yields_tokens_and_the_end(tmp_path: Path) -> None:
    code = """say(LOADED)
for line in sys.stdin:
    for n in range(3): say(json.dumps({"event": "token", "id": n, "ns": n + 1}))
    say('{"event":"end","positions":3,"new_tokens":3,"stopped":false,"cancelled":false}')"""
    log = tmp_path / "log.txt"
    with HostSession(tmp_path, PLAN, log=log, child=_child(tmp_path, code)) as session:
        for _ in range(2):
            *tokens, end = session.generate(REQUEST)
            assert [t.id for t in tokens if isinstance(t, Token)] == [0, 1, 2]
            assert isinstance(end, End)


def test_leaving_a_generation_cancels_it_and_the_next_one_is_clean(tmp_path: Path) -> None:
    code = """import select
say(LOADED)
while line := sys.stdin.readline():
    n, name = 0, json.loads(line)["token_ids"][0]
    while not select.select([0], [], [], 0.01)[0] and n < 10000:
        say(json.dumps({"event": "token", "id": name, "ns": 1})); n += 1
    sys.stdin.readline()
    say('{"event":"end","positions":3,"new_tokens":3,"stopped":false,"cancelled":true}')"""
    log = tmp_path / "log.txt"
    with HostSession(tmp_path, PLAN, log=log, child=_child(tmp_path, code)) as session:
        for name in (5, 6):
            events = session.generate(REQUEST.model_copy(update={"token_ids": (name,)}))
            first = next(events)
            assert isinstance(first, Token)
            assert first.id == name
            events.close()


def test_a_session_whose_child_dies_says_so(tmp_path: Path) -> None:
    code = "say(LOADED); sys.stdin.readline(); os.kill(os.getpid(), 6)"
    log = tmp_path / "log.txt"
    with (
        HostSession(tmp_path, PLAN, log=log, child=_child(tmp_path, code)) as session,
        pytest.raises(RunFailedError, match="SIGABRT"),
    ):
        list(session.generate(REQUEST))


def test_last_words_leave_out_stacks_and_chatter(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(
        "[threadpool.cpp:66] Resetting threadpool\nFatal Python error: Segmentation fault\n\n"
        'Current thread 0x1:\n  File "x.py", line 1 in f\n'
    )
    assert last_words(log) == "Fatal Python error: Segmentation fault"
    assert last_words(tmp_path / "absent") == ""


def test_an_event_must_be_one_of_ours() -> None:
    with pytest.raises(ValueError, match="event"):
        parse_event('{"event":"dance"}')


def test_progress_reaches_the_caller(tmp_path: Path) -> None:
    seen: list[Progress] = []
    harness = HostHarness(_child(tmp_path, "say(LOADED); say(ITEM); sys.exit(3)"))
    with pytest.raises(RunFailedError):
        harness.run(tmp_path, PLAN, log=tmp_path / "log.txt", on_progress=seen.append)
    assert seen == [Progress("deep prefill", 0, 1)]
