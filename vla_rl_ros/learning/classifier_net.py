# SPDX-License-Identifier: Apache-2.0
"""Networks of the success classifier: an encoder per camera and a small head.

`SmallResNet` has a tenth of the weights of a ResNet-10 (He et al., arXiv 1512.03385), as a CPU has
to train and run it; like HIL-SERL's (arXiv 2410.21845) it keeps where things are instead of
averaging over the image. `FrozenTower` is the vision tower of any PI0. Called by
`classifier_trainer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.conv_blocks import (
    ENCODED_WIDTH,
    POINTWISE_CHANNELS,
    DownBlock,
    normalised_images,
    quartering,
    refuse_odd_side,
)

_CHANNELS = (16, 24, 48, 64)
_DROPOUT = 0.2
_TOWER_GRID = 4


class SmallResNet(nn.Module):
    """Convolutions to a sixteenth of the image's side, then what is where."""

    def __init__(self, image_px: int) -> None:
        """Build for square images.

        Raises:
            ConfigError: The side is no multiple of 16.
        """
        super().__init__()
        refuse_odd_side(image_px)
        stem, second, third, last = _CHANNELS
        self.layers = nn.Sequential(
            *quartering(stem, second),
            DownBlock(second, third),
            DownBlock(third, last),
            nn.Conv2d(last, POINTWISE_CHANNELS, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(_DROPOUT),
            nn.Linear(POINTWISE_CHANNELS * (image_px // 16) ** 2, ENCODED_WIDTH),
            nn.LayerNorm(ENCODED_WIDTH),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images in [-1, 1], (n, 3, px, px), to (n, `ENCODED_WIDTH`)."""
        features: Tensor = self.layers(images)
        return features


class FrozenTower(nn.Module):
    """Image tokens of a PI0 that stays as it is, averaged to a grid of 4 x 4, and a layer."""

    def __init__(self, model: Any, image_px: int) -> None:  # noqa: ANN401 - see load_pi0
        """Take the vision part of a policy, which others may take as well.

        Args:
            model: As `load_pi0` gives it.
            image_px: Side of the images it will get; a multiple of what the tower sees.

        Raises:
            ConfigError: The images do not fit; names the number.
        """
        super().__init__()
        from vla_rl_ros.policies.pi0.loading import model_shape

        self._image_px = model_shape(model).image_px
        if image_px % self._image_px:
            raise ConfigError(
                f"image_px={image_px} is no multiple of the {self._image_px} px that the tower "
                "of the checkpoint sees: set it to that"
            )
        # Means over fixed boxes: the exporter does not know the adaptive ones.
        self._shrink = image_px // self._image_px
        self._side = self._image_px // model.config.vlm_config.vision_config.patch_size
        self._cell = max(1, self._side // _TOWER_GRID)
        vlm = model.model.vlm
        self.tower: Any = vlm.vision_tower
        self.projector: Any = vlm.multi_modal_projector
        for weight in (*self.tower.parameters(), *self.projector.parameters()):
            weight.requires_grad_(requires_grad=False)
        self._width = int(model.config.vlm_config.projection_dim)
        self.reduce = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(_DROPOUT),
            nn.Linear(self._width * (self._side // self._cell) ** 2, ENCODED_WIDTH),
            nn.LayerNorm(ENCODED_WIDTH),
            nn.ReLU(),
        )

    def train(self, mode: bool = True) -> FrozenTower:
        """Only the layer behind the tower ever trains."""
        super().train(mode)
        self.tower.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images in [-1, 1], (n, 3, px, px), to (n, `ENCODED_WIDTH`)."""
        with torch.no_grad():
            if self._shrink > 1:
                images = functional.avg_pool2d(images, self._shrink)
            tokens = self.projector(self.tower(images).last_hidden_state)
        tokens = functional.layer_norm(tokens, (self._width,))
        grid = tokens.transpose(1, 2).reshape(-1, self._width, self._side, self._side)
        features: Tensor = self.reduce(functional.avg_pool2d(grid, self._cell))
        return features


def load_pi0(checkpoint: Path) -> Any:  # noqa: ANN401 - transformers ships no types
    """The policy whose tower every encoder of a classifier shares.

    Raises:
        ConfigError: It is no PI0; names the file.
    """
    from vla_rl_ros.policies.pi0.loading import load_model

    return load_model(checkpoint, torch.device("cpu"), torch.float32)


class ClassifierNet(nn.Module):
    """Images of every camera to the logit of success."""

    def __init__(
        self,
        cameras: Sequence[str],
        image_px: int,
        model: Any = None,  # noqa: ANN401 - see load_pi0
    ) -> None:
        """Build.

        Args:
            cameras: In order.
            image_px: Side of the images.
            model: PI0 whose tower makes the features, None for convolutions.
        """
        super().__init__()
        self.cameras = tuple(cameras)
        encoders = [
            SmallResNet(image_px) if model is None else FrozenTower(model, image_px)
            for _ in cameras
        ]
        self.encoders = nn.ModuleList(encoders)
        self.head = nn.Sequential(
            nn.Linear(ENCODED_WIDTH * len(cameras), ENCODED_WIDTH),
            nn.ReLU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(ENCODED_WIDTH, 1),
        )

    def forward(self, *images: Tensor) -> Tensor:
        """Logits, (n,), of uint8 images (n, px, px, 3), one tensor per camera."""
        features = [
            encoder(normalised_images(stack))
            for encoder, stack in zip(self.encoders, images, strict=True)
        ]
        logits: Tensor = self.head(torch.cat(features, dim=1))[:, 0]
        return logits


class Ensemble(nn.Module):
    """Classifiers that learned apart; what they say together is the mean of their logits."""

    def __init__(self, members: Sequence[ClassifierNet]) -> None:
        """Take them."""
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, *images: Tensor) -> Tensor:
        """Logits, (n,), of uint8 images (n, px, px, 3), one tensor per camera."""
        logits = torch.stack([member(*images) for member in self.members])
        return logits.mean(0)
