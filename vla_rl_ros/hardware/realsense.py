# SPDX-License-Identifier: Apache-2.0
"""A RealSense camera or recording behind the `Camera` protocol.

Colour, optionally depth aligned to it, stamped at the middle of the exposure. The SDK delivers
into a queue of one frame, so a slow reader sees the newest. `read` tells silence (None) from a
device that is gone (DeviceError); `camera_reader` decides when to open it again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import Image, ImageArray
from vla_rl_ros.hardware.exposure_stamp import (
    ClockDomain,
    FrameTiming,
    PlaybackClock,
    StampSource,
    live_stamp,
)
from vla_rl_ros.hardware.protocols import CameraIntrinsics
from vla_rl_ros.hardware.realsense_devices import (
    RealSenseSettings,
    SdkObject,
    choose_format,
    explain,
    find_device,
    link_of,
    load_sdk,
)

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
# Unlike the depth sensor, the colour sensor reports its exposure in UVC units of 100 us.
_COLOUR_EXPOSURE_UNIT_US = 100


class RealSenseCamera:
    """One pipeline of the SDK."""

    def __init__(self, settings: RealSenseSettings) -> None:
        """Store the settings; the SDK is imported by `open`."""
        self._settings = settings
        self._sdk: ModuleType | None = None
        self._device: SdkObject = None
        self._pipeline: SdkObject = None
        self._queue: SdkObject = None
        self._align: SdkObject = None
        self._intrinsics: CameraIntrinsics | None = None
        self._playback_clock = PlaybackClock()
        self._is_bgr = False
        self._details: dict[str, str] = {}

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """Factory calibration of the colour stream."""
        if self._intrinsics is None:
            raise DeviceError("the camera is not open")
        return self._intrinsics

    def details(self) -> Mapping[str, str]:
        """Device name, serial number, USB link and the source of the stamps."""
        return dict(self._details)

    def open(self) -> None:
        """Start streaming."""
        self.close()
        sdk = load_sdk()
        device = find_device(sdk, self._settings)
        config = self._configure(sdk, device)
        pipeline, queue = sdk.pipeline(), sdk.frame_queue(1)
        try:
            profile = pipeline.start(config, queue)
        except RuntimeError as error:
            raise DeviceError(explain(error)) from error
        self._sdk, self._pipeline, self._queue = sdk, pipeline, queue
        self._device = profile.get_device()
        self._playback_clock = PlaybackClock()
        self._align = sdk.align(sdk.stream.color) if self._settings.has_depth else None
        self._intrinsics = _intrinsics(profile.get_stream(sdk.stream.color))
        if not self._settings.file:
            self._prefer_steady_frames()
        self._details = {
            "device": self._device.get_info(sdk.camera_info.name),
            "serial": self._device.get_info(sdk.camera_info.serial_number),
            "usb": link_of(sdk, self._device),
        }

    def close(self) -> None:
        """Stop streaming."""
        pipeline, self._pipeline = self._pipeline, None
        self._queue = self._device = self._align = None
        if pipeline is None:
            return
        try:
            pipeline.stop()
        except RuntimeError as error:
            raise DeviceError(f"the camera did not stop: {error}") from error

    def read(self, timeout_s: float) -> Image | None:
        """Wait for the next frame; at the end of a recording there is none."""
        if self._queue is None or self._sdk is None:
            raise DeviceError("the camera is not open")
        is_new, frame = self._queue.try_wait_for_frame(int(timeout_s * 1_000))
        arrival_ns = time.time_ns()
        if not is_new:
            self._check_connected()
            return None
        # The first frames after a start can come alone, without the other stream.
        if not frame.is_frameset():
            return None
        frames = frame.as_frameset()
        colour = frames.get_color_frame()
        if not colour or (self._align is not None and not frames.get_depth_frame()):
            return None
        stamp_ns, source = self._stamp(colour, arrival_ns)
        self._details["stamp_source"] = source.value
        depth_m = None
        if self._align is not None:
            depth_m = _metres(self._align.process(frames).get_depth_frame())
        return Image(stamp_ns=stamp_ns, rgb=self._copy_rgb(colour), depth_m=depth_m)

    def _configure(self, sdk: ModuleType, device: SdkObject) -> SdkObject:
        s = self._settings
        config = sdk.config()
        if s.file:
            config.enable_device_from_file(s.file, repeat_playback=s.is_looping)
        else:
            config.enable_device(device.get_info(sdk.camera_info.serial_number))
        formats = (sdk.format.rgb8, sdk.format.bgr8)
        colour = choose_format(sdk, device, s, sdk.stream.color, formats)
        self._is_bgr = colour == sdk.format.bgr8
        config.enable_stream(sdk.stream.color, s.width, s.height, colour, s.rate_hz)
        if s.has_depth:
            depth = choose_format(sdk, device, s, sdk.stream.depth, (sdk.format.z16,))
            config.enable_stream(sdk.stream.depth, s.width, s.height, depth, s.rate_hz)
        return config

    def _prefer_steady_frames(self) -> None:
        """Ask for mapped clocks, and for an exposure that never slows the stream down."""
        assert self._sdk is not None
        option = self._sdk.option
        for sensor in self._device.query_sensors():
            for key, value in (
                (option.global_time_enabled, 1.0),
                (option.auto_exposure_priority, 0.0),
            ):
                if sensor.supports(key) and not sensor.is_option_read_only(key):
                    sensor.set_option(key, value)

    def _check_connected(self) -> None:
        if not self._settings.file and not self._device.is_connected():
            raise DeviceError(f"camera {self._details['serial']} was unplugged")

    def _stamp(self, frame: SdkObject, arrival_ns: int) -> tuple[int, StampSource]:
        assert self._sdk is not None
        key = self._sdk.frame_metadata_value
        exposure = _metadata(frame, key.actual_exposure)
        timing = FrameTiming(
            arrival_ns=arrival_ns,
            timestamp_ns=round(frame.get_timestamp() * NS_PER_MS),
            domain=ClockDomain(str(frame.get_frame_timestamp_domain()).rpartition(".")[2]),
            period_ns=NS_PER_S // self._settings.rate_hz,
            readout_us=_metadata(frame, key.frame_timestamp),
            mid_exposure_us=_metadata(frame, key.sensor_timestamp),
            exposure_us=None if exposure is None else exposure * _COLOUR_EXPOSURE_UNIT_US,
        )
        return self._playback_clock.stamp(timing) if self._settings.file else live_stamp(timing)

    def _copy_rgb(self, frame: SdkObject) -> ImageArray:
        # The SDK recycles its buffers, so a view would change under the reader.
        data: ImageArray = np.asanyarray(frame.get_data())
        return np.ascontiguousarray(data[:, :, ::-1]) if self._is_bgr else data.copy()


def _metadata(frame: SdkObject, key: SdkObject) -> int | None:
    return int(frame.get_frame_metadata(key)) if frame.supports_frame_metadata(key) else None


def _metres(frame: SdkObject) -> NDArray[np.float32]:
    """Depth in metres, 0 where there is none."""
    scale = np.float32(frame.get_units())
    depth: NDArray[np.float32] = np.asanyarray(frame.get_data()).astype(np.float32)
    depth *= scale
    return depth


def _intrinsics(profile: SdkObject) -> CameraIntrinsics:
    """Intrinsics of a video stream; both Brown-Conrady variants share the plumb-bob order."""
    raw = profile.as_video_stream_profile().get_intrinsics()
    return CameraIntrinsics(
        width=raw.width,
        height=raw.height,
        fx=raw.fx,
        fy=raw.fy,
        cx=raw.ppx,
        cy=raw.ppy,
        distortion=tuple(float(value) for value in raw.coeffs),
    )
