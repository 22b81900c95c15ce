# SPDX-License-Identifier: Apache-2.0
"""A SpaceMouse that is not there: HID reports for a stand-in of the HID library.

No kernel of a test machine lets a program be a USB device. Here the one library below pyspacemouse
is replaced (`hid/hidapi_stub.c`, compiled when it is needed), and everything above it is the real
thing. Used by tests and by the stand-in operator; the product never needs it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vla_rl_ros.core.errors import DeviceError

HID_VARIABLE = "VLA_RL_HID"
_FULL_SCALE = 350
_SOURCE = Path(__file__).parent / "hid" / "hidapi_stub.c"


@dataclass(frozen=True, slots=True, kw_only=True)
class MouseModel:
    """How one model reports.

    Attributes:
        vendor: USB vendor.
        product: USB product.
        name: What it calls itself.
        is_split: Whether translation and rotation come in two reports of 7 bytes, instead of one
            of 13.
        buttons: Bit of each button by name, counted from the byte behind the report's number.
    """

    vendor: int
    product: int
    name: str
    is_split: bool
    buttons: Mapping[str, int]


_TWO = {"LEFT": 0, "RIGHT": 1}
_MANY = {"MENU": 0, "FIT": 1, "BTN_1": 12, "BTN_2": 13, "BTN_3": 14, "BTN_4": 15, "ESC": 22}
MODELS = {
    "compact": MouseModel(
        vendor=0x256F, product=0xC635, name="SpaceMouse Compact", is_split=True, buttons=_TWO
    ),
    "navigator": MouseModel(
        vendor=0x046D, product=0xC626, name="SpaceNavigator", is_split=True, buttons=_TWO
    ),
    "pro": MouseModel(
        vendor=0x046D, product=0xC62B, name="SpaceMouse Pro", is_split=True, buttons=_MANY
    ),
    "wireless": MouseModel(
        vendor=0x256F, product=0xC62E, name="SpaceMouse Wireless", is_split=False, buttons=_TWO
    ),
    "wireless_new": MouseModel(
        vendor=0x256F, product=0xC63A, name="SpaceMouse Wireless", is_split=False, buttons=_TWO
    ),
    "pro_wireless": MouseModel(
        vendor=0x256F,
        product=0xC632,
        name="SpaceMouse Pro Wireless",
        is_split=False,
        buttons=_MANY,
    ),
    "enterprise": MouseModel(
        vendor=0x256F, product=0xC633, name="SpaceMouse Enterprise", is_split=False, buttons=_MANY
    ),
    # A wireless mouse with two buttons behind the receiver: their bits are those of MENU and FIT.
    "receiver": MouseModel(
        vendor=0x256F, product=0xC652, name="Universal Receiver", is_split=False, buttons=_TWO
    ),
}


def build_stub(directory: Path) -> Path:
    """Compile the stand-in of the HID library into `directory`, once.

    Returns:
        The directory, for LD_LIBRARY_PATH.

    Raises:
        DeviceError: There is no C compiler, or it failed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / "libhidapi-hidraw.so.0"
    if not made.exists():
        unfinished = directory / f".{os.getpid()}.so"
        command = [
            "gcc",
            "-O1",
            "-shared",
            "-fPIC",
            "-Wl,-soname,libhidapi-hidraw.so.0",
            "-o",
            str(unfinished),
            str(_SOURCE),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise DeviceError("no C compiler for the simulated SpaceMouse: install gcc") from error
        except subprocess.CalledProcessError as error:
            raise DeviceError(f"the simulated SpaceMouse: {error.stderr}") from error
        unfinished.replace(made)
    # The name under which the linker looks for it.
    with contextlib.suppress(FileExistsError):
        (directory / "libhidapi-hidraw.so").symlink_to(made.name)
    return directory


def stub_environment(library: Path, path: Path) -> dict[str, str]:
    """What a process needs in its environment to see the mouse, beside what it has.

    Args:
        library: Directory of `build_stub`.
        path: As given to `HidMouse`.
    """
    before = os.environ.get("LD_LIBRARY_PATH", "")
    found = f"{library}{os.pathsep}{before}" if before else str(library)
    return {"LD_LIBRARY_PATH": found, HID_VARIABLE: str(path)}


class HidMouse:
    """One mouse at one socket; axes and buttons as the operator means them."""

    def __init__(self, path: Path, model: str = "compact") -> None:
        """Prepare; `plug` makes it appear.

        Args:
            path: Of the socket; must be short enough for one.
            model: Key of `MODELS`.
        """
        self.model = MODELS[model]
        self.path, self._id_path = path, Path(f"{path}.id")
        self._server: socket.socket | None = None
        self._connection: socket.socket | None = None
        self._connected = threading.Event()

    @property
    def is_connected(self) -> bool:
        """Whether somebody reads it."""
        return self._connected.is_set()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until somebody reads it; returns whether somebody does."""
        return self._connected.wait(timeout_s)

    def plug(self) -> None:
        """Appear."""
        self.path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server.bind(str(self.path))
        server.listen(1)
        self._server = server
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        model = self.model
        self._id_path.write_text(f"{model.vendor:x} {model.product:x} {model.name}\n")

    def unplug(self) -> None:
        """Disappear; idempotent."""
        self._id_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        server, self._server = self._server, None
        connection, self._connection = self._connection, None
        self._connected.clear()
        for each in (server, connection):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def push(self, axes: Sequence[float]) -> None:
        """Report a deflection.

        Args:
            axes: x y z rx ry rz in [-1, 1] in the operator's frame: x away, y left, z up.
        """
        x, y, z, rx, ry, rz = (round(_FULL_SCALE * value) for value in axes)
        # HID: x to the right, y towards the operator, z down.
        forth, turn = (-y, -x, -z), (-ry, -rx, -rz)
        if self.model.is_split:
            self.send(struct.pack("<Bhhh", 1, *forth))
            self.send(struct.pack("<Bhhh", 2, *turn))
        else:
            self.send(struct.pack("<Bhhhhhh", 1, *forth, *turn))

    def press(self, *names: str) -> None:
        """Report which buttons are down; none for all up."""
        mask = sum(1 << self.model.buttons[name] for name in names)
        self.send(struct.pack("<BI", 3, mask))

    def send(self, report: bytes) -> None:
        """Send a raw report; nothing happens while nobody reads."""
        connection = self._connection
        if connection is None:
            return
        try:
            connection.send(report)
        except OSError:
            self._connection = None
            self._connected.clear()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            self._connection = connection
            self._connected.set()
