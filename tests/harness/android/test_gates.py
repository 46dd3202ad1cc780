from __future__ import annotations

from pathlib import Path

import pytest

from mobilepack.errors import RunFailedError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.gates import Gate, wait_until_fit
from tests.harness.android.test_facts import recorded


class Phone:
    """A phone whose answers change from one question about its heat to the next."""

    def __init__(self, folder: Path, heat: list[float], *, level: int = 84, low: str = "0") -> None:
        self.answers = folder / "answers"
        self.answers.mkdir()
        thermal, battery = recorded("thermal_a52_android12"), recorded("battery_samsung_2018")
        head, current = thermal.split("Current temperatures")
        for number, celsius in enumerate(heat):
            text = (
                f"{head}Current temperatures{current.replace('mValue=24.7', f'mValue={celsius}')}"
            )
            (self.answers / f"thermal.{number}").write_text(text)
        (self.answers / "battery").write_text(battery.replace("level: 84", f"level: {level}"))
        (self.answers / "low").write_text(low)
        program = folder / "adb"
        program.write_text(
            "#!/bin/sh\n"
            f'cd "{self.answers}"\n'
            'case "$*" in\n'
            "  *thermalservice*) n=$(cat asked 2>/dev/null || echo 0); echo $((n + 1)) > asked\n"
            f"    [ $n -ge {len(heat)} ] && n={len(heat) - 1}; cat thermal.$n;;\n"
            "  *battery*) cat battery;;\n"
            "  *low_power*) cat low;;\n"
            "esac\n"
        )
        program.chmod(0o755)
        self.adb = Adb(str(program), "phone-1")
        self.clock = 0.0
        self.said: list[str] = []

    def wait(self, gate: Gate) -> dict[str, str]:
        def sleep(seconds: float) -> None:
            self.clock += seconds

        return wait_until_fit(self.adb, gate, self.said.append, now=lambda: self.clock, sleep=sleep)


def test_a_cool_phone_starts_at_once(tmp_path: Path) -> None:
    phone = Phone(tmp_path, [24.7])
    assert phone.wait(Gate())["waited_s"] == "0"
    assert phone.said == []


def test_a_hot_phone_is_waited_for(tmp_path: Path) -> None:
    phone = Phone(tmp_path, [41.5, 39.0, 36.0])
    assert phone.wait(Gate())["waited_s"] == "10"
    assert "skin LRB 41.5 °C" in phone.said[0]


def test_a_phone_that_stays_hot_is_not_timed(tmp_path: Path) -> None:
    phone = Phone(tmp_path, [50.0])
    with pytest.raises(RunFailedError) as failure:
        phone.wait(Gate(wait_s=60))
    assert failure.value.code == "phone-hot"
    assert "after 60 s" in failure.value.why


@pytest.mark.parametrize(
    ("level", "low", "code"), [(12, "0", "phone-battery"), (84, "1", "phone-low-power")]
)
def test_power(tmp_path: Path, level: int, low: str, code: str) -> None:
    with pytest.raises(RunFailedError) as failure:
        Phone(tmp_path, [24.7], level=level, low=low).wait(Gate())
    assert failure.value.code == code


def test_what_a_phone_does_not_tell_is_let_pass(tmp_path: Path) -> None:
    phone = Phone(tmp_path, [24.7])
    for path in phone.answers.iterdir():
        path.write_text("")
    assert phone.wait(Gate())["waited_s"] == "0"
