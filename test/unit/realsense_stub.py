# SPDX-License-Identifier: Apache-2.0
"""A camera on a USB port that this machine does not have: the SDK's own enums, stubbed devices."""

from __future__ import annotations

import sys
import time
from collections import deque
from types import SimpleNamespace

import numpy as np
import pyrealsense2 as rs

WIDTH, HEIGHT, RATE_HZ = 64, 48, 30


class Profile:
    def __init__(self, stream, kind, width=WIDTH, height=HEIGHT, rate_hz=RATE_HZ) -> None:
        self._values = (stream, kind, width, height, rate_hz)

    def stream_type(self):
        return self._values[0]

    def format(self):
        return self._values[1]

    def fps(self):
        return self._values[4]

    def width(self):
        return self._values[2]

    def height(self):
        return self._values[3]

    def is_video_stream_profile(self):
        return True

    def as_video_stream_profile(self):
        return self

    def get_intrinsics(self):
        return SimpleNamespace(
            width=self.width(), height=self.height(), fx=60.0, fy=60.0, ppx=32.0, ppy=24.0,
            coeffs=[0.0] * 5,
        )  # fmt: skip


class Sensor:
    def __init__(self, profiles) -> None:
        self._profiles = profiles
        self.options = {rs.option.global_time_enabled: 0.0, rs.option.auto_exposure_priority: 1.0}

    def get_stream_profiles(self):
        return self._profiles

    def supports(self, option):
        return option in self.options

    def is_option_read_only(self, option):
        return False

    def set_option(self, option, value) -> None:
        self.options[option] = value


class Device:
    def __init__(self, serial: str, profiles, usb: str = "3.2") -> None:
        self._info = {
            rs.camera_info.serial_number: serial,
            rs.camera_info.name: "Stub D435",
            rs.camera_info.usb_type_descriptor: usb,
        }
        self.sensor = Sensor(profiles)
        self.is_plugged = True

    def supports(self, info):
        return info in self._info

    def get_info(self, info):
        return self._info[info]

    def query_sensors(self):
        return [self.sensor]

    def is_connected(self):
        return self.is_plugged


class Frame:
    """Frame, frameset and colour frame in one."""

    def __init__(self, rgb, domain=rs.timestamp_domain.global_time, ms=None, **metadata) -> None:
        self._rgb, self._domain = rgb, domain
        self._ms = time.time() * 1e3 if ms is None else ms
        self._metadata = {getattr(rs.frame_metadata_value, k): v for k, v in metadata.items()}

    def is_frameset(self):
        return True

    def as_frameset(self):
        return self

    def get_color_frame(self):
        return self

    def get_data(self):
        return self._rgb

    def get_timestamp(self):
        return self._ms

    def get_frame_timestamp_domain(self):
        return self._domain

    def supports_frame_metadata(self, key):
        return key in self._metadata

    def get_frame_metadata(self, key):
        return self._metadata[key]


class StubSdk:
    """Put in the place of pyrealsense2 with `install`; one USB bus with `devices` on it."""

    def __init__(self, *devices: Device) -> None:
        self.devices = list(devices)
        self.frames: deque[Frame] = deque()
        self.start_error = ""

    def install(self, monkeypatch) -> None:
        values = {name: getattr(rs, name) for name in dir(rs) if not name.startswith("_")}
        values |= {
            "context": lambda: SimpleNamespace(query_devices=self._query),
            "pipeline": lambda: SimpleNamespace(start=self._start, stop=lambda: None),
            "config": lambda: SimpleNamespace(
                enable_device=lambda serial: None, enable_stream=lambda *mode: None
            ),
            "frame_queue": lambda capacity: SimpleNamespace(try_wait_for_frame=self._wait),
        }
        monkeypatch.setitem(sys.modules, "pyrealsense2", SimpleNamespace(**values))

    def _query(self):
        return [device for device in self.devices if device.is_plugged]

    def _start(self, config, queue):
        if self.start_error:
            raise RuntimeError(self.start_error)
        device = self._query()[0]
        return SimpleNamespace(
            get_device=lambda: device,
            get_stream=lambda stream: device.sensor.get_stream_profiles()[0],
        )

    def _wait(self, timeout_ms):
        return (True, self.frames.popleft()) if self.frames else (False, None)


def colour_device(serial: str = "111", usb: str = "3.2", kind=rs.format.rgb8) -> Device:
    """A camera with one colour mode."""
    return Device(serial, [Profile(rs.stream.color, kind)], usb)


def flat(value: int):
    """Image of one colour whose channels differ."""
    return np.full((HEIGHT, WIDTH, 3), (value, value + 1, value + 2), dtype=np.uint8)
