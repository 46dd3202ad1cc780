"""A virtual phone that all tests of this folder share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from mobilepack.commands.devices import AdbServer
from mobilepack.errors import RunFailedError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.virtual import phones
from mobilepack.harness.virtual.phones import Phone
from tests.harness.parts import fp32, provisioned, quantised

__all__ = ["fp32", "provisioned", "quantised"]
NAME = f"test-{os.getpid()}"


@pytest.fixture(scope="session")
def adb(provisioned: object) -> Adb:
    return AdbServer().client()


@pytest.fixture(scope="session")
def lab(adb: Adb) -> Iterator[Phone]:
    """Return a phone that runs."""
    made = phones.create(NAME)
    try:
        yield started(made, adb)
    finally:
        phones.delete(made, adb)


def started(made: Phone, adb: Adb) -> Phone:
    try:
        return phones.start(made, adb).phone
    except RunFailedError as err:
        if "unshare: " in err.why or "binfmt_misc" in err.why:
            pytest.skip(f"this kernel lets nobody make a virtual phone: {err.why}")
        raise


@pytest.fixture(scope="session")
def on_phone(adb: Adb, lab: Phone) -> Adb:
    return adb.on(lab.serial)
