# SPDX-License-Identifier: Apache-2.0
"""Network of trained eyes: an encoder per camera, what they see together, and how far it is.

Called by `eyes_training`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vla_rl_ros.learning.classifier_net import ENCODED_WIDTH, SmallResNet, normalised

SCALES_M = (0.1, 0.02, 0.005)
"""A residual of 5 mm a tick has to tell one millimetre, and a decimetre, from none."""
_LIMIT = 3.0
_SEEN_WIDTH = 55
FEATURE_DIM = _SEEN_WIDTH + 3 * len(SCALES_M)


class EyesNet(nn.Module):
    """Images of every camera to the way to the next key pose."""

    def __init__(self, cameras: Sequence[str], image_px: int) -> None:
        """Build for square images of `image_px`."""
        super().__init__()
        # Dropout would blur what is measured in millimetres.
        self.encoders = nn.ModuleList([SmallResNet(image_px, dropout=0.0) for _ in cameras])
        self.together = nn.Sequential(
            nn.Linear(ENCODED_WIDTH * len(cameras), _SEEN_WIDTH),
            nn.LayerNorm(_SEEN_WIDTH),
            nn.ReLU(),
        )
        self.way = nn.Linear(_SEEN_WIDTH, 3)

    def forward(self, *images: Tensor) -> tuple[Tensor, Tensor]:
        """Look.

        Args:
            images: uint8, (n, px, px, 3), one per camera.

        Returns:
            The way from the TCP to the next key pose, base axes, metres, (n, 3); and what it was
            seen by, (n, 55).
        """
        each = [
            encoder(normalised(stack))
            for encoder, stack in zip(self.encoders, images, strict=True)
        ]
        seen: Tensor = self.together(torch.cat(each, dim=1))
        return SCALES_M[0] * self.way(seen), seen


class FeatureNet(nn.Module):
    """What is exported: the features of a residual."""

    def __init__(self, net: EyesNet) -> None:
        """Wrap a trained network."""
        super().__init__()
        self._net = net

    def forward(self, *images: Tensor) -> Tensor:
        """The way at every scale, cut off at 3, and what it was seen by, (n, `FEATURE_DIM`)."""
        way_m, seen = self._net(*images)
        scaled = [(way_m / scale_m).clamp(-_LIMIT, _LIMIT) for scale_m in SCALES_M]
        return torch.cat([*scaled, seen], dim=1)
