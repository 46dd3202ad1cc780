"""A usbmuxd with one iPhone behind it, enough for real clients to list it, push and pull.

Of the phone: lockdown (values, a session without encryption, starting services) and house_arrest
with AFC on real folders. Nothing that runs an app: that needs the developer services, which on
iOS 17 and newer sit behind an encrypted tunnel; they are refused as a phone without it does.
"""

from __future__ import annotations

import contextlib
import itertools
import plistlib
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mobilepack.testing.apple.afc import Afc

UDID = "00008130-001C2D3E4F50001A"
HOUSE_ARREST = "com.apple.mobile.house_arrest"
_LOCKDOWN_PORT = 62078
_BUID = "30142955-444094379208051516"
_MUX = struct.Struct("<IIII")  # length, version, message, tag
_PLIST = 8
_DEVICE = 3
_PROPERTIES: dict[str, object] = {
    "BuildVersion": "21F79",
    "CPUArchitecture": "arm64e",
    "DeviceClass": "iPhone",
    "DeviceName": "Lab iPhone",
    "DevicePublicKey": b"x",
    "HardwareModel": "D83AP",
    "HostAttached": True,
    "PasswordProtected": False,
    "ProductName": "iPhone OS",
    "ProductType": "iPhone16,1",
    "ProductVersion": "17.5",
    "UniqueChipID": 1,
    "UniqueDeviceID": UDID,
    "WiFiAddress": "aa:bb:cc:dd:ee:ff",
}


class FakeUsbmuxd:
    """Listens on a socket file while it is entered.

    Attributes:
        address: What clients take in `USBMUXD_SOCKET_ADDRESS`; go-ios wants `unix://` before it.
        apps: Data container of each installed app.
        served: Every message and request that came.
    """

    def __init__(self, folder: Path, *bundle_ids: str, locked: bool = False) -> None:
        """Make one.

        Args:
            folder: Holds the socket and the containers; its path is at most 90 bytes long.
            bundle_ids: Of installed apps.
            locked: Whether the phone refuses services for want of its passcode.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.address = str(folder / "usbmuxd")
        self.apps = {name: folder / "containers" / name for name in bundle_ids}
        for path in self.apps.values():
            (path / "Documents").mkdir(parents=True, exist_ok=True)
        self.served: list[str] = []
        self._locked = locked
        self._ports: dict[int, str] = {}
        self._next_port = itertools.count(50000)
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self._listener.bind(self.address)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        Path(self.address).unlink(missing_ok=True)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(EOFError, OSError):
            port = self._mux(connection)
            service = self._ports.get(port, "")
            if port == _LOCKDOWN_PORT:
                self._lockdown(connection)
            elif service == HOUSE_ARREST:
                self._house_arrest(connection)

    def _mux(self, connection: socket.socket) -> int:
        """Answer usbmuxd's own messages until a client connects to a port of the phone."""
        while True:
            length, version, _, tag = _MUX.unpack(_exactly(connection, 16))
            message = plistlib.loads(_exactly(connection, length - 16))
            kind = message["MessageType"]
            self.served.append(kind)
            answer = plistlib.dumps(self._mux_answer(kind))
            connection.sendall(_MUX.pack(16 + len(answer), version, _PLIST, tag) + answer)
            if kind == "Connect":
                return socket.ntohs(message["PortNumber"])

    def _mux_answer(self, kind: str) -> dict[str, object]:
        properties = {
            "ConnectionType": "USB",
            "ConnectionSpeed": 480_000_000,
            "DeviceID": _DEVICE,
            "LocationID": 1,
            "ProductID": 4776,
            "SerialNumber": UDID,
        }
        attached = {"DeviceID": _DEVICE, "MessageType": "Attached", "Properties": properties}
        pair = {
            "HostID": "H",
            "SystemBUID": _BUID,
            "HostCertificate": b"c",
            "HostPrivateKey": b"k",
            "RootCertificate": b"r",
            "DeviceCertificate": b"d",
            "WiFiMACAddress": _PROPERTIES["WiFiAddress"],
        }
        answers: dict[str, dict[str, object]] = {
            "ListDevices": {"DeviceList": [attached]},
            "ReadBUID": {"BUID": _BUID},
            "ReadPairRecord": {"PairRecordData": plistlib.dumps(pair)},
        }
        return answers.get(kind, {"MessageType": "Result", "Number": 0})

    def _lockdown(self, connection: socket.socket) -> None:
        while True:
            asked = _receive(connection)
            self.served.append(asked["Request"])
            _send(connection, {"Request": asked["Request"]} | self._lockdown_answer(asked))

    def _lockdown_answer(self, asked: dict[str, Any]) -> dict[str, object]:
        request = asked["Request"]
        if request == "QueryType":
            return {"Type": "com.apple.mobile.lockdown"}
        if request == "GetValue":
            key = asked.get("Key")
            return {"Value": _PROPERTIES.get(key, "") if key else _PROPERTIES}
        if request == "StartSession":
            return {"SessionID": "S", "EnableSessionSSL": False}
        if request == "StartService":
            return self._start(asked["Service"])
        return {}

    def _start(self, service: str) -> dict[str, object]:
        if self._locked:
            return {"Error": "PasswordProtected"}
        if service != HOUSE_ARREST:
            return {"Error": "InvalidService"}
        port = next(self._next_port)
        self._ports[port] = service
        return {"Port": port, "Service": service, "EnableServiceSSL": False}

    def _house_arrest(self, connection: socket.socket) -> None:
        asked = _receive(connection)
        self.served.append(asked["Command"])
        container = self.apps.get(asked["Identifier"])
        if container is None:
            _send(connection, {"Error": "ApplicationLookupFailed"})
            return
        _send(connection, {"Status": "Complete"})
        Afc(container, lambda count: _exactly(connection, count), connection.sendall).serve()


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(1 << 20, count - len(parts)))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _receive(connection: socket.socket) -> dict[str, Any]:
    (length,) = struct.unpack(">I", _exactly(connection, 4))
    found: dict[str, Any] = plistlib.loads(_exactly(connection, length))
    return found


def _send(connection: socket.socket, message: dict[str, object]) -> None:
    raw = plistlib.dumps(message)
    connection.sendall(struct.pack(">I", len(raw)) + raw)
