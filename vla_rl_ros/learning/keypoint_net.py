# SPDX-License-Identifier: Apache-2.0
"""Encoder that keeps where things are to a part of a pixel.

Points are the centres of soft heat maps (spatial softmax; Levine et al., arXiv 1504.00702, section
5.1) over a quarter of the image's resolution, which know what lies around them from deeper layers
(feature pyramid, arXiv 1612.03144). Called by `eyes_net`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_rl_ros.learning.conv_blocks import (
    ENCODED_WIDTH,
    POINTWISE_CHANNELS,
    DownBlock,
    grouped_norm,
    quartering,
    refuse_odd_side,
)

_STEM, _FINE, _MIDDLE, _DEEP = 16, 32, 48, 64
_NUM_POINTS = 32


class KeypointNet(nn.Module):
    """Points at a quarter of the image's side, and what is where at a sixteenth."""

    def __init__(self, image_px: int) -> None:
        """Build for square images.

        Raises:
            ConfigError: The side is no multiple of 16.
        """
        super().__init__()
        refuse_odd_side(image_px)
        self.fine = nn.Sequential(*quartering(_STEM, _FINE))
        self.deep = nn.Sequential(DownBlock(_FINE, _MIDDLE), DownBlock(_MIDDLE, _DEEP))
        self.around = nn.Conv2d(_DEEP, _MIDDLE, 1)
        self.near = nn.Sequential(
            nn.Conv2d(_FINE, _MIDDLE, 3, padding=1, bias=False), grouped_norm(_MIDDLE)
        )
        self.heat = nn.Conv2d(_MIDDLE, _NUM_POINTS, 1)
        self.places = nn.Sequential(nn.Conv2d(_DEEP, POINTWISE_CHANNELS, 1), nn.ReLU())
        width = 2 * _NUM_POINTS + POINTWISE_CHANNELS * (image_px // 16) ** 2
        self.together = nn.Sequential(
            nn.Linear(width, ENCODED_WIDTH), nn.LayerNorm(ENCODED_WIDTH), nn.ReLU()
        )
        side = image_px // 4
        centres = torch.linspace(-1.0, 1.0, side)
        grid = torch.stack([centres.repeat(side), centres.repeat_interleave(side)], dim=1)
        self.grid: Tensor
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images in [-1, 1], (n, 3, px, px), to (n, `ENCODED_WIDTH`)."""
        fine = self.fine(images)
        deep = self.deep(fine)
        around = functional.interpolate(self.around(deep), scale_factor=4.0, mode="nearest")
        points = self.centres(self.heat(functional.relu(self.near(fine) + around)))
        places = self.places(deep)
        features: Tensor = self.together(torch.cat([points.flatten(1), places.flatten(1)], dim=1))
        return features

    def centres(self, heat: Tensor) -> Tensor:
        """Map heat, (n, p, h, w), to x and y of its centres in [-1, 1], (n, p, 2)."""
        points: Tensor = heat.flatten(2).softmax(dim=-1) @ self.grid
        return points
