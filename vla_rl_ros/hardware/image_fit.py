# SPDX-License-Identifier: Apache-2.0
"""Crops and shrinks the images of a sensor to the size the policies see, intrinsics included.

Colour is area-averaged (no aliasing at factors like 3.75), depth takes the nearest sample, because
a mean across an edge is a distance at which there is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import Image, ImageArray
from vla_rl_ros.hardware.protocols import CameraIntrinsics

IndexArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class CropBox:
    """A rectangle of the sensor's image in pixels.

    Attributes:
        x: Left column.
        y: Upper row.
        width: Columns.
        height: Rows.
    """

    x: int
    y: int
    width: int
    height: int


class ImageFit:
    """Maps images of one sensor size to one output size."""

    def __init__(
        self, sensor: CameraIntrinsics, width: int, height: int, crop: CropBox | None = None
    ) -> None:
        """Fix the geometry.

        Args:
            sensor: Intrinsics of the images that come in.
            width: Output width in pixels.
            height: Output height in pixels.
            crop: Part of the sensor's image to use; None takes the largest centred rectangle
                with the aspect ratio of the output.

        Raises:
            ConfigError: The crop leaves the sensor's image.
        """
        self._box = crop if crop is not None else _centred(sensor, width, height)
        self._size = (width, height)
        box = self._box
        is_inside = box.x + box.width <= sensor.width and box.y + box.height <= sensor.height
        if min(box.x, box.y) < 0 or min(box.width, box.height, width, height) < 1 or not is_inside:
            raise ConfigError(
                f"crop {box.width}x{box.height} at ({box.x}, {box.y}) to {width}x{height} px "
                f"does not fit into the sensor's {sensor.width}x{sensor.height} px"
            )
        self._is_identity = (box.width, box.height) == self._size == (sensor.width, sensor.height)
        self.intrinsics = self._adjust(sensor)

    def apply(self, image: Image) -> Image:
        """Return the image at the output size; the same object when nothing has to change."""
        if self._is_identity:
            return image
        box = self._box
        rows, columns = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
        rgb = np.ascontiguousarray(image.rgb[rows, columns])
        if (box.width, box.height) != self._size:
            rgb = _area_average(rgb, self._size)
        depth_m = image.depth_m
        if depth_m is not None:
            depth_m = depth_m[rows, columns][np.ix_(*self._nearest())]
        return replace(image, rgb=rgb, depth_m=depth_m)

    def _nearest(self) -> tuple[IndexArray, IndexArray]:
        width, height = self._size
        rows = ((np.arange(height) + 0.5) * self._box.height / height).astype(np.intp)
        columns = ((np.arange(width) + 0.5) * self._box.width / width).astype(np.intp)
        return rows, columns

    def _adjust(self, sensor: CameraIntrinsics) -> CameraIntrinsics:
        box, (width, height) = self._box, self._size
        scale_x, scale_y = width / box.width, height / box.height
        # Pixel centres are at integers, so the half pixel must be scaled with the rest.
        return replace(
            sensor,
            width=width,
            height=height,
            fx=sensor.fx * scale_x,
            fy=sensor.fy * scale_y,
            cx=(sensor.cx - box.x + 0.5) * scale_x - 0.5,
            cy=(sensor.cy - box.y + 0.5) * scale_y - 0.5,
        )


def _area_average(rgb: ImageArray, size: tuple[int, int]) -> ImageArray:
    # Needed only where sensor and output differ, which they do not in the simulator.
    from PIL import Image as PillowImage

    # The box filter on whole boxes is the area mean; 1 ms from 480x480 to 128x128.
    return np.asarray(PillowImage.fromarray(rgb).resize(size, PillowImage.Resampling.BOX))


def _centred(sensor: CameraIntrinsics, width: int, height: int) -> CropBox:
    box_width = min(sensor.width, sensor.height * width // height)
    box_height = min(sensor.height, sensor.width * height // width)
    return CropBox(
        x=(sensor.width - box_width) // 2,
        y=(sensor.height - box_height) // 2,
        width=box_width,
        height=box_height,
    )
