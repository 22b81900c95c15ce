# SPDX-License-Identifier: Apache-2.0
"""Images that carry their own number, so that a consumer can tell which frame it looks at.

The number stands in black and white blocks along the upper edge; it survives area averaging, so a
latency measurement may read it behind any resize.
"""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import ImageArray

NUM_BITS = 16
MIN_SIZE_PX = 2 * NUM_BITS
_WHITE = 255
_GREY_LEVELS = 200


def draw_pattern(index: int, width: int, height: int) -> ImageArray:
    """Draw frame `index`: a diagonal grey ramp that moves, below a strip with the number.

    Args:
        index: Frame number; its lowest 16 bits are drawn.
        width: Image width in pixels, at least 32.
        height: Image height in pixels, at least 32.

    Returns:
        Image of shape (height, width, 3).

    Raises:
        ConfigError: The image is too small to carry the number.
    """
    if min(width, height) < MIN_SIZE_PX:
        raise ConfigError(f"a test image of {width}x{height} px is smaller than {MIN_SIZE_PX} px")
    ramp = np.add.outer(np.arange(height), np.arange(width)) + index
    grey = (ramp % _GREY_LEVELS).astype(np.uint8)
    bits = (index >> np.arange(NUM_BITS)) & 1
    columns = np.arange(width) * NUM_BITS // width
    grey[: _strip_height(height)] = bits[columns] * _WHITE
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)


def read_pattern(rgb: ImageArray) -> int:
    """Read the frame number, modulo 65536, of an image drawn by `draw_pattern`."""
    height, width, _ = rgb.shape
    centres = ((np.arange(NUM_BITS) + 0.5) * width / NUM_BITS).astype(int)
    bits = rgb[_strip_height(height) // 2, centres, 0] > _WHITE // 2
    return int((bits.astype(np.int64) << np.arange(NUM_BITS)).sum())


def _strip_height(height: int) -> int:
    return max(4, height // 8)
