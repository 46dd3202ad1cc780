"""Debian's Swift, fetched once, and what it makes of the demo app."""

from __future__ import annotations

import subprocess

import pytest

from mobilepack.testing.swift import Swift, built_stand_in, swift
from tests.harness.parts import fp32, provisioned, quantised
from tests.provision import ROOT

__all__ = ["fp32", "provisioned", "quantised"]

DEMO = ROOT / "ios_demo"
CORE = DEMO / "HarnessCore"


@pytest.fixture(scope="session")
def tools(provisioned: object) -> Swift:
    return swift()


@pytest.fixture(scope="session")
def stand_in(tools: Swift) -> tuple[str, ...]:
    """Return the words that start HarnessCore's own program."""
    return tools.command(built_stand_in(tools))


def said(argv: tuple[object, ...]) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
