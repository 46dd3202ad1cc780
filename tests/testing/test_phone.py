"""Our device side of adb, as the real adb sees it."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

import pytest

from mobilepack.commands.deploy import AndroidPlace, deploy
from mobilepack.commands.devices import AdbServer, clean, phone_serials
from mobilepack.errors import MissingError, RunFailedError
from mobilepack.harness.android.adb import Adb
from mobilepack.harness.android.facts import read_facts
from mobilepack.testing.phone import FakePhone, Fault, Link
from tests.harness.android.conftest import NewPhone, new_phone, quantised, server

__all__ = ["new_phone", "quantised", "server"]
pytestmark = pytest.mark.slow  # an adb server takes 3 s to start
TMP = "/data/local/tmp"


def test_commands_have_status_and_two_outputs(server: Adb, new_phone: NewPhone) -> None:
    adb = server.on(new_phone().serial)
    done = adb.shell(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    killed = adb.shell(["sh", "-c", "kill -9 $$"])
    assert killed.returncode == 137


@pytest.mark.parametrize("command", ["sleep 100", "while echo; do sleep 0.01; done"])
@pytest.mark.parametrize("first", ["", "trap '' HUP; "])
def test_when_it_ends_its_programs_and_their_pipes_have_ended(
    first: str, command: str, server: Adb
) -> None:
    """Also those that go on when the client has gone, silent or talking."""
    with FakePhone() as phone:
        server.connect(phone.serial)
        with pytest.raises(RunFailedError):
            server.on(phone.serial).shell(["sh", "-c", first + command], timeout_s=1)
        server.disconnect(phone.serial)
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        gc.collect()
    assert [str(one.message) for one in left] == []


@pytest.mark.parametrize(
    "name",
    ["a b", "it's", 'a"b', "$(touch pwned)", "`id`", "new\nline", ";reboot", "ü", "-rf", "*"],
)
def test_files_of_any_name_come_and_go_whole(
    name: str, server: Adb, new_phone: NewPhone, tmp_path: Path
) -> None:
    phone = new_phone()
    adb = server.on(phone.serial)
    (tmp_path / name).write_bytes(bytes(range(256)) * 2000)
    adb.push(tmp_path / name, f"{TMP}/{name}", timeout_s=20)
    assert (phone.disk.root / f"data/local/tmp/{name}").stat().st_size == 512_000
    adb.pull(f"{TMP}/{name}", tmp_path / "back", timeout_s=20)
    assert (tmp_path / "back").read_bytes() == (tmp_path / name).read_bytes()
    assert adb.ask(["stat", "-c", "%s", f"{TMP}/{name}"]) == "512000"
    assert not list(phone.disk.root.rglob("pwned"))


def test_what_is_outside_the_phone_is_denied(
    server: Adb, new_phone: NewPhone, tmp_path: Path
) -> None:
    adb = server.on(new_phone().serial)
    (tmp_path / "x").write_text("x")
    with pytest.raises(RunFailedError) as failure:
        adb.push(tmp_path / "x", f"/data/../{tmp_path}/y", timeout_s=20)
    assert failure.value.code == "device-denied"
    assert not (tmp_path / "y").exists()


def test_it_says_what_a_phone_says(server: Adb, new_phone: NewPhone) -> None:
    phone = new_phone({"ro.soc.model": "SM8650", "ro.product.cpu.abi": "arm64-v8a"})
    phone.disk.says("battery", "Current Battery Service state:\n  level: 81\n  temperature: 283\n")
    phone.disk.set_space(5 << 30)
    facts = read_facts(server.on(phone.serial))
    assert (facts.soc, facts.soc_is_model, facts.abi) == ("SM8650", True, "arm64-v8a")
    assert (facts.battery_percent, facts.battery_c) == (81, 28.3)
    assert (facts.ram_bytes, facts.free_bytes) == (8_000_000 << 10, 5 << 30)
    assert facts.thermal is None  # a service that it has not


def test_a_fault_happens_once_and_a_reboot_changes_the_boot(
    server: Adb, new_phone: NewPhone, tmp_path: Path
) -> None:
    phone = new_phone()
    adb = server.on(phone.serial)
    (tmp_path / "x").write_bytes(b"x" * 300_000)
    phone.faults.arm(Fault("cut", "push", 100_000))
    with pytest.raises(RunFailedError) as failure:
        adb.push(tmp_path / "x", f"{TMP}/x", timeout_s=20)
    assert failure.value.code == "device-gone"
    server.connect(phone.serial)
    adb.push(tmp_path / "x", f"{TMP}/x", timeout_s=20)
    boot = adb.ask(["cat", "/proc/sys/kernel/random/boot_id"])
    phone.reboot()
    server.connect(phone.serial)
    assert adb.ask(["cat", "/proc/sys/kernel/random/boot_id"]) not in ("", boot)
    assert adb.ask(["stat", "-c", "%s", f"{TMP}/x"]) == "300000"  # its disk outlives it


def test_a_root_that_a_shell_would_read_is_refused(tmp_path: Path) -> None:
    from mobilepack.testing.phone.disk import PhoneDisk

    with pytest.raises(ValueError, match="a shell would read"):
        PhoneDisk(tmp_path / "a b", {})


def test_deploy_refuses_another_soc_and_takes_the_only_phone(
    server: Adb, new_phone: NewPhone, quantised: Path
) -> None:
    phone = new_phone()
    own = AdbServer(port=server.port)
    assert phone_serials((), own) == (phone.serial,)
    place = AndroidPlace(server.on(phone.serial), "mobilepack.demo")
    deployed = deploy(quantised, place)
    assert len(deployed.pushed) == 4
    there = phone.disk.root / "data/data/mobilepack.demo/files/package"
    assert (there / "model.pte").read_bytes() == (quantised / "model.pte").read_bytes()
    assert "force-stop mobilepack.demo" in (phone.disk.system / "am.log").read_text()
    clean(phone.serial, own)
    new_phone()
    with pytest.raises(MissingError, match="which phone"):
        phone_serials((), own)


def test_an_interrupted_deployment_is_marked_and_the_next_heals_it(
    server: Adb, new_phone: NewPhone, quantised: Path
) -> None:
    phone = new_phone()
    place = AndroidPlace(server.on(phone.serial), "mobilepack.demo")
    phone.faults.arm(Fault("cut", "push", 100_000))
    with pytest.raises(RunFailedError) as failure:
        deploy(quantised, place)
    assert failure.value.code == "device-gone"
    mark = phone.disk.root / "data/data/mobilepack.demo/files/package/.deploying"
    assert mark.exists()
    server.connect(phone.serial)
    assert len(deploy(quantised, place).pushed) == 4
    assert not mark.exists()


def test_it_is_a_context_that_leaves_nothing() -> None:
    with FakePhone(link=Link(trust="mute")) as phone:
        root = phone.disk.root
        assert root.is_dir()
    assert not root.parent.exists()
