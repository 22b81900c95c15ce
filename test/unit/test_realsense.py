# SPDX-License-Identifier: Apache-2.0
"""RealSense frames: stamps, colour order, loops, restarts, and a plug that is pulled."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pyrealsense2 as rs
import pytest
from contract.camera_suite import next_frame
from unit.realsense_stub import HEIGHT, RATE_HZ, WIDTH, Frame, StubSdk, colour_device, flat
from waiting import until

from vla_rl_ros.core.errors import ConfigError, DeviceError
from vla_rl_ros.hardware.camera_health import CameraStatus, HealthSettings
from vla_rl_ros.hardware.camera_reader import CameraReader
from vla_rl_ros.hardware.exposure_stamp import ClockDomain, StampSource
from vla_rl_ros.hardware.frame_pattern import read_pattern
from vla_rl_ros.hardware.realsense import RealSenseCamera
from vla_rl_ros.hardware.realsense_devices import RealSenseSettings
from vla_rl_ros.hardware.realsense_recording import (
    NEAREST_DEPTH_MM,
    RecordingSpec,
    write_recording,
)

SPEC = RecordingSpec(width=WIDTH, height=HEIGHT, rate_hz=60, num_frames=20)
NS_PER_MS = 1_000_000


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("realsense") / "r.db3", SPEC)


def player(path, **changes) -> RealSenseCamera:
    values = {"width": WIDTH, "height": HEIGHT, "rate_hz": SPEC.rate_hz, **changes}
    return RealSenseCamera(RealSenseSettings(file=str(path), **values))


def has_started_over(indices: list[int]) -> bool:
    return any(a > b for a, b in pairwise(indices))


@pytest.fixture
def bus(monkeypatch):
    sdk = StubSdk(colour_device())
    sdk.install(monkeypatch)
    return sdk


@pytest.fixture
def live(bus):
    camera = RealSenseCamera(RealSenseSettings(width=WIDTH, height=HEIGHT, rate_hz=RATE_HZ))
    camera.open()
    return camera


def test_colour_and_depth_of_a_frame_belong_together(recording) -> None:
    camera = player(recording, has_depth=True)
    camera.open()
    image = next_frame(camera)
    plane_mm = NEAREST_DEPTH_MM + read_pattern(image.rgb)
    assert np.allclose(image.depth_m, plane_mm / 1_000.0, atol=1e-4)
    camera.close()


def test_recorded_frames_keep_their_spacing_and_source(recording) -> None:
    camera = player(recording)
    camera.open()
    frames = [next_frame(camera) for _ in range(10)]
    camera.close()
    period_ns = 1_000_000_000 / SPEC.rate_hz
    for a, b in pairwise(frames[4:]):
        num_periods = read_pattern(b.rgb) - read_pattern(a.rgb)
        # Playback may lag and be re-anchored to the present, never the other way round.
        assert b.stamp_ns - a.stamp_ns <= num_periods * period_ns + NS_PER_MS
    assert camera.details()["stamp_source"] == StampSource.MID_EXPOSURE.value


@pytest.mark.parametrize("domain", [ClockDomain.SYSTEM, ClockDomain.HARDWARE])
def test_recordings_without_metadata_play(tmp_path, domain: ClockDomain) -> None:
    spec = RecordingSpec(
        width=WIDTH, height=HEIGHT, rate_hz=60, num_frames=6, has_depth=False,
        domain=domain, has_metadata=False,
    )  # fmt: skip
    camera = player(write_recording(tmp_path / "r.db3", spec))
    camera.open()
    stamp_ns = next_frame(camera).stamp_ns
    assert 0 <= time.time_ns() - stamp_ns < 500 * NS_PER_MS
    assert camera.details()["stamp_source"].endswith("half_period")
    camera.close()


def test_a_looping_recording_goes_on_with_fresh_stamps(recording) -> None:
    camera = player(recording, is_looping=True)
    camera.open()
    indices, stamps = [], []
    deadline_s = time.monotonic() + 10.0
    while not has_started_over(indices):
        assert time.monotonic() < deadline_s
        image = next_frame(camera)
        indices.append(read_pattern(image.rgb))
        stamps.append(image.stamp_ns)
    camera.close()
    assert stamps == sorted(stamps)


def test_the_reader_restarts_a_recording_that_ended(recording) -> None:
    health = HealthSettings(stall_after_s=0.05, restart_after_s=0.2, first_backoff_s=0.05)
    reader = CameraReader(player(recording), health)
    reader.start()
    stamp_ns, indices = 0, []
    deadline_s = time.monotonic() + 10.0
    while reader.report().num_restarts < 1 or not has_started_over(indices):
        assert time.monotonic() < deadline_s
        image = reader.wait_newer(stamp_ns, 1.0)
        if image is not None:
            stamp_ns = image.stamp_ns
            indices.append(read_pattern(image.rgb))
    assert reader.stop()
    assert reader.report().num_stalls >= 1


def test_a_live_frame_is_stamped_at_mid_exposure(bus, live) -> None:
    readout_ms = time.time() * 1e3 - 5.0
    metadata = {"frame_timestamp": 5_000_000, "sensor_timestamp": 4_992_000}
    bus.frames.append(Frame(flat(1), ms=readout_ms, **metadata))
    image = live.read(0.01)
    assert image.stamp_ns == pytest.approx((readout_ms - 8.0) * NS_PER_MS, abs=1_000)
    assert live.details()["stamp_source"] == "mid_exposure"


def test_colour_exposure_is_reported_in_units_of_100_us(bus, live) -> None:
    readout_ms = time.time() * 1e3 - 5.0
    bus.frames.append(Frame(flat(1), ms=readout_ms, actual_exposure=100))
    image = live.read(0.01)
    assert image.stamp_ns == pytest.approx((readout_ms - 5.0) * NS_PER_MS, abs=1_000)


def test_frames_are_copied_out_of_the_sdks_buffer(bus, live) -> None:
    buffer = flat(1)
    bus.frames.append(Frame(buffer))
    image = live.read(0.01)
    buffer[:] = 99
    assert image.rgb[0, 0].tolist() == [1, 2, 3]


def test_bgr_becomes_rgb(monkeypatch) -> None:
    sdk = StubSdk(colour_device(kind=rs.format.bgr8))
    sdk.install(monkeypatch)
    camera = RealSenseCamera(RealSenseSettings(width=WIDTH, height=HEIGHT, rate_hz=RATE_HZ))
    camera.open()
    sdk.frames.append(Frame(flat(1)))
    image = camera.read(0.01)
    assert image.rgb[0, 0].tolist() == [3, 2, 1]
    assert image.rgb.flags.c_contiguous


def test_clocks_are_mapped_and_exposure_does_not_slow_the_stream(bus, live) -> None:
    options = bus.devices[0].sensor.options
    assert options[rs.option.global_time_enabled] == 1.0
    assert options[rs.option.auto_exposure_priority] == 0.0


def test_silence_of_a_connected_camera_is_none_and_of_an_unplugged_one_an_error(bus, live) -> None:
    assert live.read(0.01) is None
    bus.devices[0].is_plugged = False
    with pytest.raises(DeviceError, match="111 was unplugged"):
        live.read(0.01)


def test_a_pulled_plug_is_found_again(bus) -> None:
    camera = RealSenseCamera(RealSenseSettings(width=WIDTH, height=HEIGHT, rate_hz=RATE_HZ))
    reader = CameraReader(camera, HealthSettings(first_backoff_s=0.01, max_backoff_s=0.02))
    reader.start()
    bus.devices[0].is_plugged = False
    assert until(lambda: reader.report().status is CameraStatus.LOST, 10.0)
    bus.devices[0].is_plugged = True
    assert until(lambda: reader.report().num_restarts > 0, 10.0)
    bus.frames.append(Frame(flat(7)))
    image = reader.wait_newer(0, 10.0)
    assert image is not None
    assert reader.report().status is CameraStatus.STREAMING
    assert reader.stop()


def test_an_empty_recording_is_refused() -> None:
    with pytest.raises(ConfigError):
        RecordingSpec(num_frames=0)
