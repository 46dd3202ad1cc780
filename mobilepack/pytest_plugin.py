"""A pytest plug-in: packages and devices as fixtures, metrics in `--junitxml`.

    def test_the_phone_computes_what_pytorch_computes(mobilepack_package, mobilepack_device,
                                                      mobilepack_metrics):
        result = mobilepack.verify(mobilepack_package.root, harness=mobilepack_device)
        mobilepack_metrics(result)
        result.raise_if_failed()

Beside pytest-xdist two tests never share a phone: each holds its lease, across processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mobilepack.commands.bench import BenchResult
    from mobilepack.commands.verify import VerifyResult
    from mobilepack.contract.package import Package
    from mobilepack.harness.base import Harness

_PACKAGE = "--mobilepack-package"
_DEVICE = "--mobilepack-device"
_WAIT = "--mobilepack-wait"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("mobilepack")
    group.addoption(
        _PACKAGE,
        action="append",
        default=[],
        metavar="FOLDER",
        help="Package for `mobilepack_package`; several run each test once per package.",
    )
    group.addoption(
        _DEVICE,
        action="append",
        default=[],
        metavar="NAME",
        help="Device for `mobilepack_device`, as `mobilepack verify -d` takes it. Default: host.",
    )
    group.addoption(
        _WAIT,
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="How long a test waits for a device that another one uses.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once per package and device that the command line names."""
    for fixture, option, default in (
        ("mobilepack_package", _PACKAGE, ""),
        ("mobilepack_device", _DEVICE, "host"),
    ):
        if fixture in metafunc.fixturenames:
            names = metafunc.config.getoption(option) or [default]
            metafunc.parametrize(fixture, names, indirect=True, ids=[Path(n).name for n in names])


@pytest.fixture
def mobilepack_package(request: pytest.FixtureRequest) -> Package:
    """Return an open package: of `--mobilepack-package`; without it the test is skipped."""
    from mobilepack.contract.package import open_package

    if not request.param:
        pytest.skip(f"no package was named: {_PACKAGE} FOLDER")
    return open_package(Path(request.param))


@pytest.fixture
def mobilepack_device(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Return the harness of a device that no other test uses until this one has ended."""
    from mobilepack.commands.devices import AdbServer, harnesses
    from mobilepack.harness.lease import leased

    wait_s = request.config.getoption(_WAIT)
    found = harnesses([request.param], AdbServer(wait_s=wait_s), purpose="pytest")
    if len(found) != 1:
        pytest.fail(f"{_DEVICE} {request.param} selects {len(found)} devices; name one")
    with leased(f"pytest {found[0].device.id}", request.node.name, wait_s):
        yield found[0]


@pytest.fixture
def mobilepack_metrics(
    record_property: Callable[[str, object], None],
) -> Callable[[VerifyResult | BenchResult], None]:
    """Return a function that puts a result's figures into the test's properties."""

    def record(result: Any) -> None:
        for name, value in _figures(result):
            record_property(f"mobilepack.{name}", value)

    return record


def _figures(result: Any) -> Iterator[tuple[str, object]]:
    from mobilepack.commands.verify import VerifyResult

    if isinstance(result, VerifyResult):
        yield "passed", result.parity.passed
        for row in result.parity.rows:
            for metric in row.metrics:
                yield f"{row.rung}.{row.check}.{metric.name}", metric.value
        return
    for test in result.bench.tests:
        yield f"{test.test}.tok_per_s", test.round_tok_per_s.median
        yield f"{test.test}.trust", test.trust
        if test.instructions_per_token is not None:
            yield f"{test.test}.instructions_per_token", test.instructions_per_token
