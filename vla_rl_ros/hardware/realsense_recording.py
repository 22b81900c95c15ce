# SPDX-License-Identifier: Apache-2.0
"""Writes a RealSense recording without a camera, through the SDK's own software device.

The recording plays through the same pipeline as a camera, metadata included, so that driver and
latency can be tried on any machine. Frames carry their number (`frame_pattern`).
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError, DeviceError
from vla_rl_ros.hardware.exposure_stamp import ClockDomain
from vla_rl_ros.hardware.frame_pattern import draw_pattern
from vla_rl_ros.hardware.realsense_devices import SdkObject, load_sdk

DEPTH_UNIT_M = 0.001
NEAREST_DEPTH_MM = 500
MID_EXPOSURE_OFFSET_US = 8_000
"""Time from the middle of the exposure to the begin of readout in the metadata."""
_COLOUR_EXPOSURE = 156
_MS_PER_S = 1_000.0
_US_PER_S = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingSpec:
    """What to record.

    Attributes:
        width: Columns.
        height: Rows.
        rate_hz: Frames per second; writing takes as long as playing.
        num_frames: Length.
        has_depth: Whether a plane is recorded that recedes by 1 mm per frame from 0.5 m.
        serial: Serial number of the camera that the recording claims to be.
        domain: Clock of the frame times.
        has_metadata: Whether frames carry exposure metadata.
    """

    width: int = 640
    height: int = 480
    rate_hz: int = 30
    num_frames: int = 30
    has_depth: bool = True
    serial: str = "000000000000"
    domain: ClockDomain = ClockDomain.GLOBAL
    has_metadata: bool = True

    def __post_init__(self) -> None:
        """Refuse an empty recording."""
        if self.num_frames < 1 or self.rate_hz < 1:
            raise ConfigError(f"a recording needs frames and a rate: {self}")


def write_recording(path: Path, spec: RecordingSpec) -> Path:
    """Record `spec.num_frames` frames to `path`, which must end in ``.db3``.

    Raises:
        DeviceError: The SDK refuses the file.
    """
    sdk = load_sdk()
    path.unlink(missing_ok=True)
    writer = _Writer(sdk, spec)
    try:
        recorder = sdk.recorder(str(path), writer.device)
    except RuntimeError as error:
        raise DeviceError(f"cannot record to '{path}': {error}") from error
    sensors = recorder.query_sensors()
    queue = sdk.frame_queue(1)
    for sensor in sensors:
        sensor.open(sensor.get_stream_profiles()[0])
        sensor.start(queue)
    start_s = time.monotonic()
    for index in range(spec.num_frames):
        # The recorder stamps messages when they come, and playback keeps that pace.
        time.sleep(max(0.0, start_s + index / spec.rate_hz - time.monotonic()))
        writer.feed(index)
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    # The file is complete when the recorder is destroyed.
    del sensor, sensors, recorder, writer
    gc.collect()
    return path


class _Writer:
    """The software device and its streams."""

    def __init__(self, sdk: ModuleType, spec: RecordingSpec) -> None:
        self._sdk, self._spec = sdk, spec
        self.device = sdk.software_device()
        self.device.register_info(sdk.camera_info.name, "Synthetic RealSense")
        self.device.register_info(sdk.camera_info.serial_number, spec.serial)
        self._colour = self.device.add_sensor("RGB Camera")
        self._colour_profile = self._colour.add_video_stream(
            self._stream(sdk.stream.color, sdk.format.rgb8, 3), True
        )
        self._depth = None
        if spec.has_depth:
            self._depth = self.device.add_sensor("Stereo Module")
            self._depth.add_read_only_option(sdk.option.depth_units, DEPTH_UNIT_M)
            self._depth_profile = self._depth.add_video_stream(
                self._stream(sdk.stream.depth, sdk.format.z16, 2), True
            )
            pose = sdk.extrinsics()
            pose.rotation, pose.translation = np.eye(3).ravel().tolist(), [0.0, 0.0, 0.0]
            self._depth_profile.register_extrinsics_to(self._colour_profile, pose)
            self.device.create_matcher(sdk.matchers.dlr_c)
        self._start_s = time.time()

    def feed(self, index: int) -> None:
        """Hand frame `index` to the recorder."""
        spec = self._spec
        rgb = draw_pattern(index, spec.width, spec.height)
        self._send(self._colour, self._colour_profile, index, rgb, 3)
        if self._depth is not None:
            shape = (spec.height, spec.width)
            depth = np.full(shape, NEAREST_DEPTH_MM + index, dtype=np.uint16)
            self._send(self._depth, self._depth_profile, index, depth, 2)

    def _stream(self, kind: SdkObject, pixel: SdkObject, num_bytes: int) -> SdkObject:
        spec, stream, lens = self._spec, self._sdk.video_stream(), self._sdk.intrinsics()
        lens.width, lens.height = spec.width, spec.height
        lens.ppx, lens.ppy = spec.width / 2.0, spec.height / 2.0
        lens.fx = lens.fy = float(spec.width)
        lens.model = self._sdk.distortion.brown_conrady
        lens.coeffs = [0.01, -0.02, 0.001, -0.001, 0.0]
        stream.type, stream.fmt, stream.bpp, stream.uid = kind, pixel, num_bytes, num_bytes
        stream.index, stream.width, stream.height = 0, spec.width, spec.height
        stream.fps, stream.intrinsics = spec.rate_hz, lens
        return stream

    def _send(
        self,
        sensor: SdkObject,
        profile: SdkObject,
        index: int,
        pixels: NDArray[np.generic],
        num_bytes: int,
    ) -> None:
        spec, frame = self._spec, self._sdk.software_video_frame()
        elapsed_s = index / spec.rate_hz
        frame.pixels, frame.profile = pixels, profile.as_video_stream_profile()
        frame.stride, frame.bpp, frame.frame_number = spec.width * num_bytes, num_bytes, index
        frame.timestamp = (self._start_s + elapsed_s) * _MS_PER_S
        frame.domain = getattr(self._sdk.timestamp_domain, spec.domain.value)
        if num_bytes == 2:
            frame.depth_units = DEPTH_UNIT_M
        if spec.has_metadata:
            key = self._sdk.frame_metadata_value
            readout_us = int(_US_PER_S + elapsed_s * _US_PER_S)
            sensor.set_metadata(key.frame_timestamp, readout_us)
            sensor.set_metadata(key.sensor_timestamp, readout_us - MID_EXPOSURE_OFFSET_US)
            sensor.set_metadata(key.actual_exposure, _COLOUR_EXPOSURE)
        sensor.on_video_frame(frame)
