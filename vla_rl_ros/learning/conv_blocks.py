# SPDX-License-Identifier: Apache-2.0
"""What small networks that look at images share: blocks of layers, and how images enter.

Called by `classifier_net`, `keypoint_net` and `eyes_net`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from vla_rl_ros.core.errors import ConfigError

_GROUPS = 4
POINTWISE_CHANNELS = 16
ENCODED_WIDTH = 64


def normalised_images(stack: Tensor) -> Tensor:
    """Images uint8, (n, px, px, 3), as the encoders take them: (n, 3, px, px) in [-1, 1]."""
    return stack.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def refuse_odd_side(image_px: int) -> None:
    """An encoder halves its images four times.

    Raises:
        ConfigError: The side is no multiple of 16.
    """
    if image_px % 16:
        raise ConfigError(f"image_px={image_px} is no multiple of 16")


def grouped_norm(channels: int) -> nn.GroupNorm:
    """Normalisation that does not depend on the batch."""
    return nn.GroupNorm(_GROUPS, channels)


def quartering(middle: int, channels_out: int) -> list[nn.Module]:
    """Layers from (n, 3, h, w) to (n, c, h / 4, w / 4)."""
    return [
        nn.Conv2d(3, middle, 5, stride=2, padding=2, bias=False),
        grouped_norm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, channels_out, 3, stride=2, padding=1, bias=False),
        grouped_norm(channels_out),
        nn.ReLU(),
    ]


class DownBlock(nn.Module):
    """Two convolutions that halve the image, and a short cut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
        self.first_norm = grouped_norm(channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = grouped_norm(channels_out)
        self.cut = nn.Conv2d(channels_in, channels_out, 1, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c', h / 2, w / 2)."""
        inner = functional.relu(self.first_norm(self.first(images)))
        inner = self.second_norm(self.second(inner))
        result: Tensor = functional.relu(inner + self.cut(images))
        return result
