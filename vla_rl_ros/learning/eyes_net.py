# SPDX-License-Identifier: Apache-2.0
"""Network of trained eyes: an encoder per camera, how far it is, and what would be done.

Called by `eyes_training`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vla_rl_ros.core.spec import ACTION_DIM
from vla_rl_ros.learning.conv_blocks import ENCODED_WIDTH, normalised_images
from vla_rl_ros.learning.keypoint_net import KeypointNet

SCALES_M = (0.1, 0.02, 0.005)
"""A residual of 5 mm a tick has to tell one millimetre, and a decimetre, from none."""
_LIMIT = 3.0
_SEEN_WIDTH = 48
ACTION_COLUMNS = slice(3 * len(SCALES_M), 3 * len(SCALES_M) + ACTION_DIM)
"""Where the features tell what would be done."""
FEATURE_DIM = ACTION_COLUMNS.stop + _SEEN_WIDTH


class EyesNet(nn.Module):
    """Images of every camera to the way to the next key pose and to the demonstrated action."""

    def __init__(self, cameras: Sequence[str], image_px: int) -> None:
        """Build for square images of `image_px`."""
        super().__init__()
        self.encoders = nn.ModuleList([KeypointNet(image_px) for _ in cameras])
        self.together = nn.Sequential(
            nn.Linear(ENCODED_WIDTH * len(cameras), _SEEN_WIDTH),
            nn.LayerNorm(_SEEN_WIDTH),
            nn.ReLU(),
        )
        self.way = nn.Linear(_SEEN_WIDTH, 3)
        self.action = nn.Linear(_SEEN_WIDTH, ACTION_DIM)

    def forward(self, *images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look.

        Args:
            images: uint8, (n, px, px, 3), one per camera.

        Returns:
            The way from the TCP to the next key pose, base axes, metres, (n, 3); what would be
            done, normalised, (n, 7); and what both were seen by, (n, 48).
        """
        each = [
            encoder(normalised_images(stack))
            for encoder, stack in zip(self.encoders, images, strict=True)
        ]
        seen: Tensor = self.together(torch.cat(each, dim=1))
        return SCALES_M[0] * self.way(seen), self.action(seen), seen


class FeatureNet(nn.Module):
    """What is exported: the features of a residual."""

    def __init__(self, net: EyesNet) -> None:
        """Wrap a trained network."""
        super().__init__()
        self._net = net

    def forward(self, *images: Tensor) -> Tensor:
        """Way at every scale and action, cut off at 3, and what they were seen by, (n, 64)."""
        way_m, action, seen = self._net(*images)
        told = [*(way_m / scale_m for scale_m in SCALES_M), action]
        return torch.cat([torch.cat(told, dim=1).clamp(-_LIMIT, _LIMIT), seen], dim=1)
