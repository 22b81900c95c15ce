# SPDX-License-Identifier: Apache-2.0
"""Images for the pages that this package serves."""

from __future__ import annotations

import io

from vla_rl_ros.core.types import ImageArray


def encode_png(image: ImageArray) -> bytes:
    """PNG of an RGB image, shape (height, width, 3); fast rather than small."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()
