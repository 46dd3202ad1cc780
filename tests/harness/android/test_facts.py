"""Parsers of what phones print; the README beside the recordings says where each comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilepack.harness.android import conditions, facts

RECORDED = Path(__file__).parents[2] / "data" / "recorded" / "android"


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text("utf-8")


def test_temperatures_are_the_current_ones_and_absent_sensors_are_left_out() -> None:
    text = recorded("thermal_a52_android12").replace(
        "mValue=25.6, mType=0", "mValue=99, mType=0", 1
    )
    assert facts.parse_temperatures(text) == {
        "cpu AP": 25.6,
        "battery BAT": 23.8,
        "skin LRB": 24.7,
        "skin LRF": 24.7,
        "skin LRP": 24.7,
        "other PA": 25.7,
    }
    assert facts.parse_thermal_status(text) == "none"


def test_a_phone_with_old_temperatures_only_has_none() -> None:
    text = recorded("thermal_a52_android12").split("Current temperatures")[0]
    assert facts.parse_temperatures(text) == {}


@pytest.mark.parametrize(("number", "word"), [(2, "moderate"), (6, "shutdown"), (7, None)])
def test_thermal_status_has_android_s_words(number: int, word: str | None) -> None:
    assert facts.parse_thermal_status(f"Thermal Status: {number}\n") == word


@pytest.mark.parametrize(
    ("name", "found"), [("battery_samsung_2018", (84, 32.6)), ("battery_board", (90, 2.6))]
)
def test_battery(name: str, found: tuple[int, float]) -> None:
    assert facts.parse_battery(recorded(name)) == found


def test_a_board_without_a_battery_has_no_charge() -> None:
    text = recorded("battery_board").replace("present: true", "present: false")
    assert facts.parse_battery(text) == (None, None)


def test_battery_scale_counts() -> None:
    assert facts.parse_battery("  level: 5\n  scale: 10\n") == (50, None)


def test_properties_of_our_phone() -> None:
    properties = facts.parse_properties(recorded("adbd_getprop"))
    assert properties["ro.product.cpu.abi"] == "arm64-v8a"
    assert facts.is_virtual(properties)
    assert not facts.is_virtual({"ro.product.model": "Pixel 9"})


def test_free_space() -> None:
    found = facts.parse_free(recorded("adbd_df"))
    assert found is not None
    assert found > 2**20


def test_memory_is_in_bytes() -> None:
    assert facts.parse_memory("MemTotal:       11853720 kB\nMemFree: 1 kB\n") == 11853720 * 1024


def test_frequencies_in_the_order_of_cores() -> None:
    text = "cpu10 700000 walt\ncpu0 1804800 schedutil\ncpu1  \ncpu2 300000 walt\n"
    frequencies, governors = conditions.parse_frequencies(text)
    assert frequencies == "cpu0=1804800 cpu2=300000 cpu10=700000"
    assert governors == "schedutil walt"


@pytest.mark.parametrize(
    "parse",
    [
        facts.parse_properties,
        facts.parse_memory,
        facts.parse_free,
        facts.parse_battery,
        facts.parse_thermal_status,
        facts.parse_temperatures,
        conditions.parse_frequencies,
    ],
)
@given(
    text=st.text()
    | st.lists(
        st.sampled_from(
            ["level: 3", "scale: 0", "Thermal Status: 99999999999999999999", "[a]: []", "cpu0 1 x"]
        )
    ).map("\n".join)
)
def test_anything_is_parsed_without_an_exception(parse: Callable[[str], Any], text: str) -> None:
    parse(text)


@pytest.mark.parametrize("text", ["", "Can't find service: thermalservice", "Permission Denial"])
def test_what_a_phone_does_not_tell_is_unknown(text: str) -> None:
    assert facts.parse_memory(text) is None
    assert facts.parse_free(text) is None
    assert facts.parse_battery(text) == (None, None)
    assert facts.parse_thermal_status(text) is None
    assert facts.parse_temperatures(text) == {}
