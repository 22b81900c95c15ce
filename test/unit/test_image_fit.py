# SPDX-License-Identifier: Apache-2.0
"""Cropping and shrinking: pixels, intrinsics and depth go together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import Image
from vla_rl_ros.hardware.frame_pattern import draw_pattern, read_pattern
from vla_rl_ros.hardware.image_fit import CropBox, ImageFit
from vla_rl_ros.hardware.protocols import CameraIntrinsics

SENSOR = CameraIntrinsics(width=640, height=480, fx=600.0, fy=610.0, cx=319.5, cy=239.5)


def test_the_same_size_costs_nothing() -> None:
    image = Image(stamp_ns=1, rgb=np.zeros((480, 640, 3), np.uint8))
    fit = ImageFit(SENSOR, 640, 480)
    assert fit.apply(image) is image
    assert fit.intrinsics == SENSOR


def test_a_square_output_takes_the_centre() -> None:
    fit = ImageFit(SENSOR, 128, 128)
    assert fit.intrinsics.fx == pytest.approx(600.0 * 128 / 480)
    assert fit.intrinsics.fy == pytest.approx(610.0 * 128 / 480)
    # The centre of the sensor stays the centre of the image.
    assert fit.intrinsics.cx == pytest.approx(63.5)
    assert fit.intrinsics.cy == pytest.approx(63.5)


def test_colour_is_the_mean_of_the_area() -> None:
    rgb = np.zeros((480, 640, 3), np.uint8)
    rgb[:, ::2] = 200
    shrunk = ImageFit(SENSOR, 320, 240).apply(Image(stamp_ns=1, rgb=rgb)).rgb
    assert np.all(shrunk == 100)


def test_depth_is_sampled_and_never_mixed() -> None:
    depth_m = np.where(np.arange(640) % 2 == 0, 0.5, 2.0) * np.ones((480, 1))
    image = Image(
        stamp_ns=1, rgb=np.zeros((480, 640, 3), np.uint8), depth_m=depth_m.astype(np.float32)
    )
    fitted = ImageFit(SENSOR, 128, 96).apply(image)
    assert fitted.depth_m is not None
    assert fitted.depth_m.shape == (96, 128)
    assert set(np.unique(fitted.depth_m)) <= {0.5, 2.0}


def test_a_crop_moves_the_principal_point() -> None:
    fit = ImageFit(SENSOR, 100, 50, CropBox(x=200, y=100, width=100, height=50))
    assert (fit.intrinsics.cx, fit.intrinsics.cy) == (119.5, 139.5)
    rgb = np.zeros((480, 640, 3), np.uint8)
    rgb[100, 200] = 255
    assert fit.apply(Image(stamp_ns=1, rgb=rgb)).rgb[0, 0, 0] == 255


@given(st.integers(16, 300), st.integers(16, 300), st.integers(0, 639), st.integers(0, 479))
def test_a_point_keeps_its_ray(width: int, height: int, u: int, v: int) -> None:
    fit = ImageFit(SENSOR, width, height, CropBox(x=40, y=20, width=500, height=400))
    scale_x, scale_y = width / 500, height / 400
    moved = ((u - 40 + 0.5) * scale_x - 0.5, (v - 20 + 0.5) * scale_y - 0.5)
    lens = fit.intrinsics
    assert (moved[0] - lens.cx) / lens.fx == pytest.approx((u - SENSOR.cx) / SENSOR.fx)
    assert (moved[1] - lens.cy) / lens.fy == pytest.approx((v - SENSOR.cy) / SENSOR.fy)


@pytest.mark.parametrize(
    "crop",
    [
        CropBox(x=600, y=0, width=100, height=100),
        CropBox(x=-1, y=0, width=10, height=10),
        CropBox(x=0, y=0, width=0, height=10),
    ],
)
def test_a_crop_outside_the_image_is_refused(crop: CropBox) -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        ImageFit(SENSOR, 128, 128, crop)


@given(st.integers(0, 65_535))
def test_the_frame_number_survives_the_resize(index: int) -> None:
    image = Image(stamp_ns=1, rgb=draw_pattern(index, 320, 240))
    sensor = CameraIntrinsics(width=320, height=240, fx=300.0, fy=300.0, cx=159.5, cy=119.5)
    assert read_pattern(ImageFit(sensor, 128, 96).apply(image).rgb) == index


def test_a_test_image_too_small_for_its_number_is_refused() -> None:
    with pytest.raises(ConfigError):
        draw_pattern(0, 31, 64)
