from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mobilepack.errors import RunFailedError
from mobilepack.harness.lease import holder, leased


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEPACK_CACHE", str(tmp_path))


def test_a_device_is_held_by_one_and_freed_at_the_end() -> None:
    assert holder("emulator-5554") is None
    with leased("emulator-5554", "verify"):
        found = holder("emulator-5554")
        assert found is not None
        assert (found.serial, found.purpose) == ("emulator-5554", "verify")
        assert found.age_s < 60
        with leased("another/serial:with\n$(odd) characters", "bench"):
            pass
    assert holder("emulator-5554") is None


def test_another_process_is_told_who_holds_it() -> None:
    code = (
        "from mobilepack.harness.lease import leased\n"
        "from mobilepack.errors import RunFailedError\n"
        "try:\n"
        "    leased('x', 'bench').__enter__()\n"
        "except RunFailedError as err:\n"
        "    print(err.code, err.why)\n"
    )
    with leased("x", "verify"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
    assert done.stdout.startswith("device-busy held by ")
    assert "verify" in done.stdout


def test_a_holder_that_is_killed_lets_go(tmp_path: Path) -> None:
    code = (
        "import time\nfrom mobilepack.harness.lease import leased\n"
        "with leased('x', 'soak'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(RunFailedError, match="in use"), leased("x", "verify"):
            pass
        child.kill()
    with leased("x", "verify", wait_s=5):
        pass


def test_waiting_for_the_holder() -> None:
    code = (
        "import time\nfrom mobilepack.harness.lease import leased\n"
        "with leased('x', 'short'):\n    print('held', flush=True)\n    time.sleep(1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with leased("x", "verify", wait_s=30):
            found = holder("x")
    assert found is not None
    assert found.purpose == "verify"
