# SPDX-License-Identifier: Apache-2.0
"""3Dconnexion SpaceMouse through pyspacemouse, which knows the reports of every model.

pyspacemouse finds the device, knows where in its reports axes and buttons are, and turns them into
the ROS convention. Reading with a time limit goes around its `read`, which either returns at once
(and then lags behind a device that sends faster than it is asked) or blocks for good (and then
cannot be ended).
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.hardware.protocols import SixDofReport

_AXES = ("x", "y", "z", "roll", "pitch", "yaw")
# A wireless mouse with two buttons behind the universal receiver shows up with the layout of the
# large models; the bits of its two buttons are called so there.
_ALIASES = {"MENU": "LEFT", "FIT": "RIGHT"}
INSTALL = "install it with: pip install pyspacemouse"
INSTALL_HID = "the library libhidapi-hidraw is missing: apt install libhidapi-hidraw0"
UDEV = (
    "no permission to open it: copy config/udev/70-spacemouse.rules to /etc/udev/rules.d, run "
    "'udevadm control --reload-rules && udevadm trigger' and plug it in again"
)


class SpaceMouse:
    """The first SpaceMouse that is plugged in."""

    def __init__(self) -> None:
        """Connect to nothing yet."""
        self._mouse: Any = None
        self._state: Any = None
        self._name = ""
        self._buttons: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Model, as pyspacemouse calls it."""
        return self._name

    def open(self) -> None:
        """Connect.

        Raises:
            DeviceError: pyspacemouse or the HID library is not installed, no device is plugged
                in, or it may not be opened; names the fix.
        """
        self.close()
        library = _library()
        device, info = _find(library)
        convention = library.AxisConvention.ROS
        timed = _TimedHid(device)
        mouse = library.SpaceMouseDevice(library.apply_axis_convention(info, convention), timed)
        try:
            mouse.open()
        except RuntimeError as error:
            raise DeviceError(f"{info.name} at {device.path}: {UDEV}") from error
        self._mouse, self._hid, self._name = mouse, timed, info.name
        self._buttons = tuple(info.button_names)

    def close(self) -> None:
        """Disconnect; idempotent."""
        mouse, self._mouse, self._state = self._mouse, None, None
        if mouse is not None:
            mouse.close()

    def read(self, timeout_s: float) -> SixDofReport | None:
        """Wait for the next report of the device and return its state after it.

        Raises:
            DeviceError: Unplugged, or not open.
        """
        if self._mouse is None:
            raise DeviceError("the SpaceMouse is not open")
        self._hid.timeout_s, self._hid.is_silent = timeout_s, True
        try:
            state = self._state = self._mouse.read()
        except Exception as error:  # easyhid's own exception, without a common base
            raise DeviceError(f"{self._name} is gone: {error}") from error
        if self._hid.is_silent:
            return None
        axes = np.array([getattr(state, axis) for axis in _AXES])
        pressed = {name for name, level in zip(self._buttons, state.buttons, strict=True) if level}
        pressed |= {_ALIASES[name] for name in pressed if name in _ALIASES}
        return SixDofReport(axes=np.clip(axes, -1.0, 1.0), pressed=frozenset(pressed))

    def forget(self) -> None:
        """Take everything for released until the device says otherwise."""
        state = self._state
        if state is None:
            return
        # pyspacemouse changes this object with each report; there is no other way to reset it.
        for axis in _AXES:
            setattr(state, axis, 0.0)
        state.buttons[:] = [0] * len(state.buttons)


class _TimedHid:
    """easyhid's device as pyspacemouse wants it, with a time limit on every read."""

    def __init__(self, device: Any) -> None:  # noqa: ANN401 - easyhid has no types
        self._device = device
        self.timeout_s = 0.0
        self.is_silent = True

    def read(self, size: int) -> bytes:
        report = bytes(self._device.read(size, timeout=round(1000.0 * self.timeout_s)))
        if report:
            self.is_silent = False
        return report

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else is asked of it
        return getattr(self._device, name)


def _library() -> Any:  # noqa: ANN401 - a module without types
    try:
        return importlib.import_module("pyspacemouse")
    except ImportError as error:
        raise DeviceError(f"pyspacemouse is missing: {INSTALL}") from error
    except (OSError, TypeError) as error:
        raise DeviceError(INSTALL_HID) from error


def _find(library: Any) -> tuple[Any, Any]:  # noqa: ANN401 - a module without types
    """Device of easyhid and its description by pyspacemouse."""
    easyhid = importlib.import_module("easyhid")
    try:
        found = easyhid.Enumeration().find()
    except AttributeError as error:
        # Without the library easyhid looks for its functions in Python itself.
        raise DeviceError(INSTALL_HID) from error
    known = {
        (info.vendor_id, info.product_id): info for info in library.get_device_specs().values()
    }
    for device in found:
        info = known.get((device.vendor_id, device.product_id))
        if info is not None:
            return device, info
    raise DeviceError("no SpaceMouse is plugged in")
