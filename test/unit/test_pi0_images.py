# SPDX-License-Identifier: Apache-2.0
"""Images: exact boxes, and the same interpolation as torch's anti-aliased one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.policies.pi0.images import fit, pixel_values, shrink


def _image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_values_and_layout() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    white[0, 1] = (255, 0, 0)
    pixels = pixel_values({"a": white, "b": black}, ("b", "a"), 8, "area")
    assert pixels.shape == (1, 2, 3, 8, 8)
    assert pixels.dtype == np.float32
    assert (pixels[0, 0] == -1.0).all()
    assert pixels[0, 1, :, 0, 0].tolist() == [1.0, 1.0, 1.0]
    assert pixels[0, 1, :, 0, 1].tolist() == [1.0, -1.0, -1.0]


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_boxes_are_rounded_means(factor: int) -> None:
    image = _image(4 * factor, 4 * factor)
    wanted = image.reshape(4, factor, 4, factor, 3).mean((1, 3))
    np.testing.assert_allclose(shrink(image, 4).astype(float), wanted, atol=0.5)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (10, 10), (2, 2)])
def test_boxes_refuse_what_they_would_distort(height: int, width: int) -> None:
    with pytest.raises(InvalidCommandError, match=f"'wrist' gives {width}x{height}.*width_px"):
        pixel_values({"wrist": _image(height, width)}, ("wrist",), 4, "area")


def test_a_missing_camera_is_named() -> None:
    with pytest.raises(InvalidCommandError, match="'front'"):
        pixel_values({"wrist": _image(4, 4)}, ("wrist", "front"), 4, "area")


@given(st.integers(2, 40), st.integers(2, 40), st.integers(4, 24))
def test_fit_equals_torch_with_antialias(height: int, width: int, size: int) -> None:
    image = _image(height, width)
    ratio = max(height, width) / size
    rows, columns = max(1, int(height / ratio)), max(1, int(width / ratio))
    # torch repeats the first row where an image is one pixel wide.
    assume(min(rows, columns) > 1)
    planes = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].double()
    scaled = torch.nn.functional.interpolate(
        planes, (rows, columns), mode="bilinear", antialias=True
    )
    square = fit(image, size)
    top, left = (size - rows) // 2, (size - columns) // 2
    inside = square[top : top + rows, left : left + columns]
    np.testing.assert_allclose(inside, scaled[0].permute(1, 2, 0).numpy(), atol=0.5001)
    border = square.astype(int).sum() - inside.astype(int).sum()
    assert border == 0


def test_fit_leaves_a_fitting_image_alone() -> None:
    image = _image(12, 12)
    assert np.array_equal(fit(image, 12), image)
