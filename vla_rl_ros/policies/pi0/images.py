# SPDX-License-Identifier: Apache-2.0
"""Camera images as a PI0 wants them, in numpy alone.

Called by `pi0.translation` and `policies.model_inputs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.types import FloatArray, ImageArray

PixelArray: TypeAlias = NDArray[np.float32]


def pixel_values(
    images: Mapping[str, ImageArray], cameras: Sequence[str], size_px: int, resize: str
) -> PixelArray:
    """Stack the images of one observation.

    Args:
        images: Camera name to colour image, (height, width, 3), uint8.
        cameras: Names in the order of training.
        size_px: Side of the model's square images.
        resize: ``area`` or ``pad``, see `shrink` and `fit`.

    Returns:
        Values in [-1, 1], shape (1, cameras, 3, size_px, size_px).

    Raises:
        InvalidCommandError: An image is missing or malformed, or has a size that ``area``
            cannot reduce.
    """
    resized = []
    for name in cameras:
        image = camera_image(images, name)
        square = shrink(image, size_px, name) if resize == "area" else fit(image, size_px)
        resized.append(square.transpose(2, 0, 1))
    stacked: PixelArray = np.stack(resized)[None].astype(np.float32) / np.float32(127.5) - 1
    return stacked


def camera_image(images: Mapping[str, ImageArray], name: str) -> ImageArray:
    """The image of one camera.

    Raises:
        InvalidCommandError: ``missing_image``, or ``wrong_image`` when it is no colour image.
    """
    image = images.get(name)
    if image is None:
        raise InvalidCommandError("missing_image", f"no image of camera '{name}'")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InvalidCommandError(
            "wrong_image",
            f"camera '{name}' gives {image.dtype} of shape {image.shape}, not (h, w, 3) uint8",
        )
    return image


def shrink(image: ImageArray, size_px: int, name: str = "") -> ImageArray:
    """Reduce a square image by a whole factor, every pixel the mean of a box, rounded.

    The reduction of training: sub-pixel edges, and no filter that has to be matched.

    Raises:
        InvalidCommandError: Sides are unequal or no whole multiple of `size_px`.
    """
    height, width = image.shape[:2]
    factor = height // size_px
    if height != width or factor * size_px != height or factor == 0:
        raise InvalidCommandError(
            "image_size",
            f"camera '{name}' gives {width}x{height}, the model needs a square whose side is a "
            f"multiple of {size_px}; set the camera's width_px and height_px",
        )
    if factor == 1:
        return image
    total = np.zeros((size_px, size_px, 3), dtype=np.uint32)
    # A sum over axes of a reshaped image would take five times as long.
    for row in range(factor):
        for column in range(factor):
            total += image[row::factor, column::factor]
    area = factor * factor
    mean: ImageArray = ((total + area // 2) // area).astype(np.uint8)
    return mean


def fit(image: ImageArray, size_px: int) -> ImageArray:
    """Scale an image of any shape into a square, centred on black, without distortion.

    Linear interpolation with a triangle as wide as an output pixel, rounded back to whole colour
    values: what full-size PI0 was trained with (openpi, `resize_with_pad`).
    """
    height, width = image.shape[:2]
    if height == width == size_px:
        return image
    ratio = max(width, height) / size_px
    rows, columns = max(1, int(height / ratio)), max(1, int(width / ratio))
    scaled = np.einsum("rh,hwc->rwc", _weights(height, rows), image.astype(np.float64))
    scaled = np.einsum("kw,rwc->rkc", _weights(width, columns), scaled)
    square = np.zeros((size_px, size_px, 3), dtype=np.uint8)
    top, left = (size_px - rows) // 2, (size_px - columns) // 2
    square[top : top + rows, left : left + columns] = np.rint(scaled).clip(0, 255)
    return square


@lru_cache(maxsize=16)
def _weights(size_in: int, size_out: int) -> FloatArray:
    """Matrix (size_out, size_in) of linear interpolation with anti-aliasing; rows sum to 1."""
    scale = size_in / size_out
    centres = (np.arange(size_out) + 0.5) * scale
    distances = np.abs(np.arange(size_in) + 0.5 - centres[:, None]) / max(scale, 1.0)
    triangles = np.clip(1.0 - distances, 0.0, None)
    weights: FloatArray = triangles / triangles.sum(1, keepdims=True)
    weights.setflags(write=False)
    return weights
