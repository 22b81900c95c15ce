# SPDX-License-Identifier: Apache-2.0
"""Finds a RealSense camera, chooses its streams, and says in one sentence what is wrong if not.

The SDK looks for an absent device for 15 s and then says "No device connected"; here the list of
devices is read first, so that the error comes at once and names what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from vla_rl_ros.core.errors import ConfigError, DeviceError

SdkObject: TypeAlias = Any
"""An object of the vendor's SDK, which ships no types."""

RECORDING_SUFFIXES = (".db3", ".bag")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealSenseSettings:
    """Which camera and which streams.

    Attributes:
        serial: Serial number; empty takes the only camera there is.
        file: A recording (.db3 or .bag) to play instead of a camera.
        width: Width of the colour stream.
        height: Height of the colour stream.
        rate_hz: Frames per second.
        has_depth: Whether depth is streamed and aligned to colour.
        is_looping: Whether a recording starts again at its end.
    """

    serial: str = ""
    file: str = ""
    width: int = 640
    height: int = 480
    rate_hz: int = 30
    has_depth: bool = False
    is_looping: bool = False

    def __post_init__(self) -> None:
        """Refuse an ambiguous source."""
        if self.serial and self.file:
            raise ConfigError("RealSense: set either serial or file, not both")
        if self.file and Path(self.file).suffix not in RECORDING_SUFFIXES:
            raise ConfigError(f"RealSense: '{self.file}' is not a .db3 or .bag recording")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class StreamMode:
    """One mode of a stream.

    Attributes:
        width: Columns.
        height: Rows.
        rate_hz: Frames per second.
    """

    width: int
    height: int
    rate_hz: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}@{self.rate_hz}"


def load_sdk() -> ModuleType:
    """Import pyrealsense2.

    Raises:
        DeviceError: It, or a system library it needs, is missing.
    """
    try:
        import pyrealsense2
    except ModuleNotFoundError as error:
        raise DeviceError(
            "pyrealsense2 is not installed: pip install 'vla_rl_ros[hardware]'"
        ) from error
    except ImportError as error:
        if "libusb" in str(error):
            raise DeviceError(
                f"the RealSense SDK needs libusb ({error}): sudo apt install libusb-1.0-0"
            ) from error
        raise DeviceError(f"the RealSense SDK cannot be loaded: {error}") from error
    sdk: ModuleType = pyrealsense2
    return sdk


def find_device(sdk: ModuleType, settings: RealSenseSettings) -> SdkObject:
    """Return the camera, or the recording as a device.

    Raises:
        DeviceError: It is not there; names the serial numbers that are.
    """
    if settings.file:
        return _load_recording(sdk, settings.file)
    found = {}
    for device in sdk.context().query_devices():
        if device.supports(sdk.camera_info.serial_number):
            found[device.get_info(sdk.camera_info.serial_number)] = device
    if not found:
        raise DeviceError(
            "no RealSense camera is connected: check the cable, and that the user may open USB "
            "devices (librealsense's udev rules)"
        )
    serials = ", ".join(sorted(found))
    if settings.serial:
        if settings.serial not in found:
            raise DeviceError(f"no RealSense camera {settings.serial}; connected: {serials}")
        return found[settings.serial]
    if len(found) > 1:
        raise DeviceError(f"several RealSense cameras are connected, set serial: {serials}")
    return next(iter(found.values()))


def _load_recording(sdk: ModuleType, file: str) -> SdkObject:
    if not Path(file).is_file():
        raise DeviceError(f"there is no recording '{file}'")
    try:
        return sdk.context().load_device(file)
    except RuntimeError as error:
        raise DeviceError(f"'{file}' is not a RealSense recording: {error}") from error


def link_of(sdk: ModuleType, device: SdkObject) -> str:
    """USB version of the device's link, e.g. ``3.2``; empty when it does not say."""
    if not device.supports(sdk.camera_info.usb_type_descriptor):
        return ""
    return str(device.get_info(sdk.camera_info.usb_type_descriptor))


def choose_format(
    sdk: ModuleType,
    device: SdkObject,
    settings: RealSenseSettings,
    stream: SdkObject,
    formats: tuple[SdkObject, ...],
) -> SdkObject:
    """Return the first of `formats` in which the device offers the wanted mode of a stream.

    Raises:
        DeviceError: It offers none; lists the modes it does offer, and blames USB 2 where due.
    """
    wanted = StreamMode(width=settings.width, height=settings.height, rate_hz=settings.rate_hz)
    offered: dict[SdkObject, set[StreamMode]] = {}
    for kind, mode in _modes(device, stream):
        offered.setdefault(kind, set()).add(mode)
    for kind in formats:
        if wanted in offered.get(kind, ()):
            return kind
    name = str(stream).rpartition(".")[2]
    modes = sorted({mode for kind in formats for mode in offered.get(kind, ())})
    if not modes:
        kinds = ", ".join(sorted(str(kind).rpartition(".")[2] for kind in offered)) or "nothing"
        wanted_kinds = " or ".join(str(kind).rpartition(".")[2] for kind in formats)
        raise DeviceError(f"the camera has no {name} stream in {wanted_kinds}; it has {kinds}")
    link = link_of(sdk, device)
    blame = f" over USB {link} (use a USB 3 port and cable)" if link.startswith("2") else ""
    listed = ", ".join(str(mode) for mode in modes)
    raise DeviceError(f"{name} {wanted} is not offered{blame}; supported: {listed}")


def _modes(device: SdkObject, stream: SdkObject) -> Iterator[tuple[SdkObject, StreamMode]]:
    for sensor in device.query_sensors():
        for profile in sensor.get_stream_profiles():
            if profile.stream_type() != stream or not profile.is_video_stream_profile():
                continue
            video = profile.as_video_stream_profile()
            mode = StreamMode(width=video.width(), height=video.height(), rate_hz=profile.fps())
            yield profile.format(), mode


def explain(error: RuntimeError) -> str:
    """Turn an error of the SDK's `start` into a sentence with the fix, vendor's words included."""
    text = str(error)
    lower = text.lower()
    if "busy" in lower or "acquire power state" in lower or "set power state" in lower:
        return f"the camera is used by another program, or must be plugged in again: {text}"
    if "access" in lower or "permission" in lower:
        return f"no permission to open the camera (install librealsense's udev rules): {text}"
    return f"the camera did not start: {text}"
