# SPDX-License-Identifier: Apache-2.0
"""The stand-in of the HID library, loaded into this process before pyspacemouse looks for it."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

from vla_rl_ros.sim.hid_mouse import HID_VARIABLE, HidMouse, build_stub, stub_environment

_LOADED: list[ctypes.CDLL] = []
_DIRECTORY = tempfile.TemporaryDirectory(prefix="hid")


def mouse_at(name: str, model: str) -> HidMouse:
    """A mouse that this process will see once it is plugged in."""
    root = Path(_DIRECTORY.name)
    path = root / name
    if not _LOADED:
        library = build_stub(root)
        os.environ.update(stub_environment(library, path))
        _LOADED.append(ctypes.CDLL(str(library / "libhidapi-hidraw.so.0"), ctypes.RTLD_GLOBAL))
    os.environ[HID_VARIABLE] = str(path)
    return HidMouse(path, model)
