"""Everything that can go wrong with a phone: the real adb and runner, our device side of adb.

Each fault ends in a typed error with advice; the same run asked for again does only what is missing
and brings exactly what an undisturbed run brings; nobody holds the phone afterwards.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mobilepack.cli.device_options import on_each
from mobilepack.commands.devices import AdbServer, devices, harnesses
from mobilepack.contract.run_plan import Generate, RunPlan, Teacher, Time
from mobilepack.contract.run_result import RunResult
from mobilepack.errors import MissingError, RunFailedError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.harness import AdbHarness
from mobilepack.harness.android.store import ROOT, Store
from mobilepack.harness.base import Harness, Limits
from mobilepack.harness.lease import holder
from mobilepack.harness.native.local import NativeHarness
from mobilepack.testing import HARNESS_CHECKS
from mobilepack.testing.phone import FakePhone, Fault, Link
from tests.harness.android.conftest import NewPhone

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("provisioned", "runs_here")]
SOON = Limits(run_s=60)
PLAN = RunPlan(
    max_seq_len=64,
    prefill_chunk=32,
    sample_ids=(0, 5),
    top_k=4,
    threads=1,
    items=(
        Teacher(name="one", token_ids=tuple(range(1, 9)), calls=(4, 1, 1)),
        Generate(name="two", token_ids=(3, 1, 4), max_new_tokens=5),
        # Faults happen while it cools down: a program this small is over before they could.
        Time(
            name="three",
            token_ids=(5,),
            n_prompt=4,
            n_gen=2,
            warmups=0,
            repetitions=1,
            cooldown_s=0.5,
        ),
        Teacher(name="four", token_ids=(2, 7, 1, 8), calls=(1, 1, 1, 1)),
    ),
)
NAMES = [item.name for item in PLAN.items]
FORGOTTEN = PLAN.model_copy(
    update={"items": (Time(name="long", token_ids=(1,), n_prompt=32, n_gen=16, repetitions=99999),)}
)
Expect = Callable[[RunResult], None]


@pytest.fixture(scope="module")
def expected(quantised: Path, tmp_path_factory: pytest.TempPathFactory) -> Expect:
    """Return what compares a result with an undisturbed run's, to the last bit."""
    log = tmp_path_factory.mktemp("expected") / "log"
    found = NativeHarness().run(quantised, PLAN, log=log)

    def compare(result: RunResult) -> None:
        assert result.rows == found.rows
        assert [one.token_ids for one in result.generated] == [
            one.token_ids for one in found.generated
        ]
        assert [one.item for one in result.timings] == ["three"]

    return compare


class Seen(list[str]):
    """The items that a run begins."""

    def __call__(self, progress: object) -> None:
        item = getattr(progress, "item", "")
        if item in NAMES:
            self.append(item)


def attempt(adb: Adb, package: Path, folder: Path, *, limits: Limits = SOON) -> tuple[Seen, object]:
    """Run the plan; return what it began, and its result or error."""
    seen = Seen()
    try:
        done: object = AdbHarness(adb).run(
            package, PLAN, log=folder / "log", limits=limits, on_progress=seen
        )
    except RunFailedError as err:
        done = err
    assert holder(adb.serial) is None
    return seen, done


def reconnected(server: Adb, phone: FakePhone) -> Adb:
    deadline = time.monotonic() + 20
    while True:
        try:
            server.connect(phone.serial)
            return server.on(phone.serial)
        except RunFailedError:  # it is booting
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("check", HARNESS_CHECKS, ids=lambda check: check.__name__)
def test_the_contract(
    check: Callable[[Harness, Path, str, Path], None],
    server: Adb,
    new_phone: NewPhone,
    quantised: Path,
    tmp_path: Path,
) -> None:
    adb = server.on(new_phone().serial)
    check(AdbHarness(adb), quantised, "model.pte", tmp_path / "log.txt")


# Bytes of stdout: the first item's rows end at some 900, the third begins at some 1400.
BREAKS = [
    (Fault("cut", "push", 100_000), "device-gone"),
    (Fault("cut", "run", 1), "device-gone"),
    (Fault("cut", "run", 1000), "device-gone"),
    (Fault("cut", "pull", 1), "device-gone"),
    (Fault("reboot", "push", 100_000), "device-gone"),
    (Fault("reboot", "run", 1000), "device-gone"),
    (Fault("reboot", "pull", 1), "device-gone"),
    (Fault("kill", "run", 1000), "runtime-died"),
]


@pytest.mark.parametrize(
    ("fault", "code"), BREAKS, ids=lambda x: f"{x.kind}-{x.during}" if isinstance(x, Fault) else ""
)
def test_a_run_that_breaks_is_finished_by_the_next(
    fault: Fault,
    code: str,
    server: Adb,
    new_phone: NewPhone,
    quantised: Path,
    tmp_path: Path,
    expected: Expect,
) -> None:
    phone = new_phone()
    phone.faults.arm(fault)
    began, error = attempt(server.on(phone.serial), quantised, tmp_path)
    assert isinstance(error, RunFailedError)
    assert phone.happened == [fault]
    # A reboot that is over when we look is told from a cable that was pulled.
    assert error.code in ({code, "device-rebooted"} if fault.kind == "reboot" else {code})
    assert error.next
    again, result = attempt(reconnected(server, phone), quantised, tmp_path)
    assert isinstance(result, RunResult), result
    expected(result)
    assert again == NAMES[len(NAMES) - len(again) :]
    if fault.during == "pull":
        assert again == []  # everything had been measured: it was fetched
    # What had begun and not finished is begun once more, nothing else; a runner that was done
    # before it was hung up on has left its result on the phone.
    assert len(again) <= len(NAMES) + 1 - len(began)
    assert server.on(phone.serial).ask(["ls", f"{ROOT}/runs"]) == ""
    assert (result.environment.conditions.get("resumed") is None) == (len(again) == len(NAMES))


def test_a_runner_that_hangs_is_stopped_and_the_rest_comes_later(
    server: Adb, new_phone: NewPhone, quantised: Path, tmp_path: Path, expected: Expect
) -> None:
    phone = new_phone()
    adb = server.on(phone.serial)
    phone.faults.arm(Fault("hang", "run", 1000))
    began, error = attempt(adb, quantised, tmp_path, limits=Limits(run_s=5))
    assert isinstance(error, RunFailedError)
    assert error.code == "run-timeout"
    assert "mobilepack_runner" not in adb.ask(["sh", "-c", f"cat {ROOT}/runs/*/pid"])
    again, result = attempt(adb, quantised, tmp_path)
    assert isinstance(result, RunResult)
    expected(result)
    assert 0 < len(again) <= len(NAMES) + 1 - len(began)


def test_a_full_disk_leaves_nothing_half_and_no_run(
    server: Adb, new_phone: NewPhone, quantised: Path, tmp_path: Path, expected: Expect
) -> None:
    phone = new_phone()
    phone.disk.set_space(1 << 20)
    adb = server.on(phone.serial)
    began, error = attempt(adb, quantised, tmp_path)
    assert isinstance(error, RunFailedError)
    assert (error.code, began) == ("device-full", [])
    assert "--clean" in error.next
    assert ".part" not in adb.ask(["sh", "-c", f"find {ROOT} -type f"])
    phone.disk.set_space(1 << 30)
    _, result = attempt(adb, quantised, tmp_path)
    assert isinstance(result, RunResult)
    expected(result)


@pytest.mark.parametrize(
    ("trust", "code", "advice"),
    [("no", "device-unauthorized", "allow USB debugging"), ("mute", "device-offline", "plug")],
)
def test_a_phone_without_trust_or_answer_is_said(
    trust: str,
    code: str,
    advice: str,
    server: Adb,
    new_phone: NewPhone,
    quantised: Path,
    tmp_path: Path,
) -> None:
    phone = new_phone(link=Link(trust=trust))  # type: ignore[arg-type]
    _, error = attempt(server.on(phone.serial), quantised, tmp_path)
    assert isinstance(error, RunFailedError)
    assert error.code == code
    assert advice in error.next
    listed = next(
        one for one in devices(AdbServer(port=server.port)).devices if one.id == phone.serial
    )
    assert advice in listed.remedy
    with pytest.raises(MissingError, match="cannot be used"):
        harnesses([phone.serial], AdbServer(port=server.port), purpose="test")


def test_a_slow_link_takes_its_time_and_a_stuck_one_is_given_up(
    server: Adb, new_phone: NewPhone, quantised: Path, tmp_path: Path, expected: Expect
) -> None:
    slow = new_phone(link=Link(bytes_per_s=20e6))
    _, result = attempt(server.on(slow.serial), quantised, tmp_path)
    assert isinstance(result, RunResult)
    expected(result)
    stuck = new_phone(link=Link(bytes_per_s=20e3))
    with pytest.raises(RunFailedError) as failure:
        server.on(stuck.serial).push(quantised / "model.pte", "/data/local/tmp/x", timeout_s=2)
    assert failure.value.code == "device-timeout"


def test_a_phone_without_memory_is_a_report(
    server: Adb, new_phone: NewPhone, quantised: Path, tmp_path: Path
) -> None:
    phone = new_phone(memory_bytes=24 << 20)
    _, error = attempt(server.on(phone.serial), quantised, tmp_path)
    assert isinstance(error, RunFailedError)
    assert error.code in ("runtime-failed", "runtime-died")
    assert "memory" in f"{error.why} {error.next}".lower()


CLOCK = """
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
/* Wall-clock time goes back by an hour between any two looks at it; no other clock does. */
static long looks;
int clock_gettime(clockid_t clock, struct timespec* now) {
  int (*real)(clockid_t, struct timespec*) = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec -= 3600 * ++looks;
  return status;
}
int gettimeofday(struct timeval* now, void* zone) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  now->tv_sec = at.tv_sec;
  now->tv_usec = at.tv_nsec / 1000;
  return 0;
}
time_t time(time_t* now) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  if (now) *now = at.tv_sec;
  return at.tv_sec;
}
"""


def test_a_clock_that_jumps_changes_no_time(
    server: Adb, new_phone: NewPhone, quantised: Path, tmp_path: Path
) -> None:
    (tmp_path / "clock.c").write_text(CLOCK)
    library = tmp_path / "clock.so"
    flags = ["-shared", "-fPIC", "-D_GNU_SOURCE", "-O1"]
    subprocess.run(["gcc", *flags, "-o", library, tmp_path / "clock.c", "-ldl"], check=True)  # noqa: S607
    phone = new_phone(preload=library)
    adb = server.on(phone.serial)
    dates = [int(adb.ask(["date", "+%s"])) for _ in range(2)]
    assert abs(dates[1] - dates[0]) < 60  # each process begins its own count
    item = Time(name="t", token_ids=(1, 2), n_prompt=8, n_gen=4, repetitions=3)
    plan = PLAN.model_copy(update={"items": (item,)})
    result = AdbHarness(adb).run(quantised, plan, log=tmp_path / "log", limits=SOON)
    samples = [
        *result.timings[0].prefill_ns,
        *(ns for r in result.timings[0].decode_ns for ns in r),
    ]
    assert len(samples) == 15
    assert all(0 < ns < 10e9 for ns in samples)


def test_twenty_phones_at_once(
    server: Adb, new_phone: NewPhone, quantised: Path, tmp_path: Path, expected: Expect
) -> None:
    made = [new_phone({"ro.product.model": f"phone {n}"}) for n in range(20)]
    made[7].faults.arm(Fault("cut", "run", 1000))
    made[13].disk.set_space(1 << 20)
    chosen = harnesses(
        ["model=" + f"phone {n}" for n in range(20)], AdbServer(port=server.port), purpose="test"
    )
    assert len(chosen) == 20

    def work(harness: Harness) -> RunResult:
        log = tmp_path / harness.device.id.replace(":", "-")
        return harness.run(quantised, PLAN, log=log, limits=Limits(run_s=120))

    outcomes = {one.device: one for one in on_each(chosen, work)}
    assert set(outcomes) == {phone.serial for phone in made}
    for number, phone in enumerate(made):
        one = outcomes[phone.serial]
        assert holder(phone.serial) is None
        if number in (7, 13):
            assert one.error is not None
            assert one.error.code == ("device-gone" if number == 7 else "device-full")
        else:
            assert one.result is not None, one.error
            expected(one.result)


def test_a_run_that_this_machine_forgot_is_ended_by_the_next(
    server: Adb, new_phone: NewPhone, quantised: Path, tmp_path: Path, expected: Expect
) -> None:
    """This machine lost power: nobody told the phone to stop."""
    phone = new_phone()
    adb = server.on(phone.serial)
    with Store(adb).run_folder() as folder:
        start = f"sleep 300 & echo $! > {folder}/pid"
        adb.shell(["sh", "-c", f"({start}) >/dev/null 2>&1 </dev/null"])
        pid = int(adb.ask(["cat", f"{folder}/pid"]))
        _, result = attempt(adb, quantised, tmp_path)
        assert isinstance(result, RunResult)
        expected(result)
        cmdline = Path(f"/proc/{pid}/cmdline")  # nobody may have fetched its status yet
        assert not cmdline.exists() or cmdline.read_bytes() == b""
