"""An adb server of the tests' own, and phones whose faults are on demand."""

from __future__ import annotations

import contextlib
import platform
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from mobilepack.errors import RunFailedError
from mobilepack.harness.android.adb import Adb, find_adb
from mobilepack.process import run
from mobilepack.testing.phone import FakePhone
from tests.harness.parts import fp32, provisioned, quantised

__all__ = ["fp32", "provisioned", "quantised"]
NewPhone = Callable[..., FakePhone]


@pytest.fixture(scope="session")
def server() -> Iterator[Adb]:
    """Start an adb server that knows no device of anybody else's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    adb = Adb(find_adb(), port=port)
    adb.devices()  # starts it
    yield adb
    run(adb.argv("kill-server"), timeout_s=30)


@pytest.fixture
def new_phone(server: Adb) -> Iterator[NewPhone]:
    """Return what makes phones that adb is connected to."""
    with contextlib.ExitStack() as stack:

        def make(properties: Mapping[str, str] | None = None, **more: Any) -> FakePhone:
            phone = stack.enter_context(FakePhone(properties, **more))
            stack.callback(server.disconnect, phone.serial)
            with contextlib.suppress(RunFailedError):  # adb says so of those without trust
                server.connect(phone.serial)
            return phone

        yield make


@pytest.fixture(scope="session")
def runs_here() -> None:
    """Skip where the native runner of an x86_64 phone cannot run."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the phone is an x86_64 emulator whose programs run on this machine")
