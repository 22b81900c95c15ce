# SPDX-License-Identifier: Apache-2.0
"""What every `Camera` must do. Subclass it, give a `camera` fixture, and inherit the tests."""

from __future__ import annotations

import time

import numpy as np
import pytest

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import Image
from vla_rl_ros.hardware.protocols import Camera

FRAME_LIMIT_S = 10.0
MAX_STAMP_AGE_NS = 1_000_000_000


def next_frame(camera: Camera, limit_s: float = FRAME_LIMIT_S) -> Image:
    """Read until a frame comes."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        image = camera.read(0.1)
        if image is not None:
            return image
    raise AssertionError(f"no frame within {limit_s} s")


def silence(camera: Camera, limit_s: float = FRAME_LIMIT_S) -> None:
    """Read until a read comes back empty."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if camera.read(0.1) is None:
            return
    raise AssertionError(f"frames did not stop within {limit_s} s")


class CameraSuite:
    """Inherited by one test class per implementation."""

    has_depth = False

    @pytest.fixture
    def opened(self, camera):
        camera.open()
        yield camera
        camera.close()

    def test_reading_or_asking_before_open_is_refused(self, camera) -> None:
        with pytest.raises(DeviceError):
            camera.read(0.01)

    def test_intrinsics_describe_the_frames(self, opened) -> None:
        image, lens = next_frame(opened), opened.intrinsics
        assert image.rgb.shape == (lens.height, lens.width, 3)
        assert image.rgb.dtype == np.uint8
        assert lens.fx > 0.0
        assert lens.fy > 0.0
        assert 0.0 < lens.cx < lens.width
        assert 0.0 < lens.cy < lens.height
        assert len(lens.distortion) == 5

    def test_depth_is_metres_on_the_colour_grid(self, opened) -> None:
        image = next_frame(opened)
        if not self.has_depth:
            assert image.depth_m is None
            return
        assert image.depth_m.shape == image.rgb.shape[:2]
        assert image.depth_m.dtype == np.float32
        assert 0.1 < float(np.median(image.depth_m)) < 10.0

    def test_stamps_are_of_the_present_past_and_increase(self, opened) -> None:
        # The first frame may wait for a renderer or an exposure to get ready.
        last_ns = next_frame(opened).stamp_ns
        for _ in range(4):
            image = next_frame(opened)
            age_ns = time.time_ns() - image.stamp_ns
            assert 0 <= age_ns < MAX_STAMP_AGE_NS
            # An SDK may hand the first frame out twice; the reader drops such repeats.
            assert image.stamp_ns >= last_ns
            last_ns = image.stamp_ns

    def test_a_frame_does_not_change_under_its_reader(self, opened) -> None:
        image = next_frame(opened)
        before = image.rgb.copy()
        for _ in range(3):
            next_frame(opened)
        assert np.array_equal(image.rgb, before)

    def test_close_is_idempotent_and_ends_reading(self, opened) -> None:
        next_frame(opened)
        opened.close()
        opened.close()
        with pytest.raises(DeviceError):
            opened.read(0.01)

    def test_a_closed_camera_opens_again(self, opened) -> None:
        first = next_frame(opened)
        opened.close()
        opened.open()
        assert next_frame(opened).stamp_ns > first.stamp_ns
