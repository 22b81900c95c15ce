# SPDX-License-Identifier: Apache-2.0
"""Image features for a learner, as a by-product of an inference of PI0.

The image tokens that the vision tower made for the policy itself are reduced to a few numbers per
camera: normalised, averaged to a grid of 4 x 4 at most, and projected by fixed random signs, which
are nearly orthogonal and keep distances (Johnson-Lindenstrauss; Achlioptas 2003). The signs depend
on nothing but the seed and the sizes. Called by `graph` and `backend`.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vla_rl_ros.policies.manifest import PolicyManifest

FEATURES_PER_CAMERA = 64
_GRID = 4
_SEED = 20_251
_VERSION = 1
"""Changes whenever the same tokens give other features."""


class FeatureReduction(torch.nn.Module):
    """Image tokens to features."""

    signs: Tensor

    def __init__(self, num_tokens: int, width: int) -> None:
        """Draw the projection.

        Args:
            num_tokens: Of one image.
            width: Of a token.
        """
        super().__init__()
        # PI0's tokens form a square; others keep their order in one row of cells.
        side = math.isqrt(num_tokens)
        self._shape = (side, side) if side * side == num_tokens else (1, num_tokens)
        self._cells = (min(self._shape[0], _GRID), min(self._shape[1], _GRID))
        num_inputs = self._cells[0] * self._cells[1] * width
        signs = np.random.default_rng(_SEED).integers(0, 2, (num_inputs, FEATURES_PER_CAMERA))
        scaled = (2.0 * signs - 1.0) / math.sqrt(num_inputs)
        self.register_buffer("signs", torch.tensor(scaled, dtype=torch.float32), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Reduce.

        Args:
            tokens: Of every camera, (cameras, num_tokens, width).

        Returns:
            float32, (cameras * `FEATURES_PER_CAMERA`,), camera by camera; about 1 in size.
        """
        normalised = functional.layer_norm(tokens.float(), tokens.shape[-1:])
        if self._cells != self._shape:
            grid = normalised.transpose(1, 2).reshape(len(tokens), -1, *self._shape)
            cells = functional.adaptive_avg_pool2d(grid, self._cells)
            normalised = cells.flatten(2).transpose(1, 2)
        return (normalised.flatten(1) @ self.signs).flatten()


def make_reduction(model: Any) -> FeatureReduction:  # noqa: ANN401 - transformers' class is untyped
    """The reduction that fits a loaded model, on its device."""
    config = model.config.vlm_config
    vision = config.vision_config
    num_tokens = (vision.image_size // vision.patch_size) ** 2
    reduction = FeatureReduction(num_tokens, config.projection_dim)
    return reduction.to(model.action_out_proj.weight.device)


def tower_hash(model: Any, manifest: PolicyManifest) -> str:  # noqa: ANN401
    """What the features depend on besides the images: weights, reduction and image preparation.

    Weights of another type are other weights, because they see something else.

    Args:
        model: A loaded `PI0ForConditionalGeneration`.
        manifest: Of its checkpoint.
    """
    cameras = ",".join(manifest.cameras)
    digest = hashlib.sha256(
        f"{_VERSION} {_SEED} {_GRID} {FEATURES_PER_CAMERA} "
        f"{cameras} {manifest.image_px} {manifest.image_resize}".encode()
    )
    vlm = model.model.vlm
    for part in (vlm.vision_tower, vlm.multi_modal_projector):
        for name, weight in sorted(part.state_dict().items()):
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
