# SPDX-License-Identifier: Apache-2.0
"""The vision tower of a PI0 without the rest: eyes for a policy that has none.

Imported by `policies.pi0.make_eyes` only, because torch is heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import ImageArray
from vla_rl_ros.policies.manifest import read_manifest
from vla_rl_ros.policies.pi0.backend import SHIPPED
from vla_rl_ros.policies.pi0.images import pixel_values
from vla_rl_ros.policies.pi0.loading import (
    choose_device,
    choose_dtype,
    load_model,
    model_shape,
)
from vla_rl_ros.policies.pi0.translation import Float32Array
from vla_rl_ros.policies.pi0.vision import FEATURES_PER_CAMERA, make_reduction, tower_hash
from vla_rl_ros.policies.protocol import SHIPPED_EYES, PolicySettings


class Tower:
    """Features of images as a PI0 makes them for itself.

    Attributes:
        cameras: Those the weights were trained with.
        feature_dim: Width of the features.
        tower_hash: Equal to that of a policy with the same tower.
    """

    def __init__(self, settings: PolicySettings) -> None:
        """Load the checkpoint that `settings.eyes` names.

        Raises:
            ConfigError: It is none, or has no cameras.
        """
        named = settings.eyes
        directory = SHIPPED if named == SHIPPED_EYES else Path(named).expanduser()
        if not directory.is_dir():
            raise ConfigError(
                f"settings.eyes='{named}' is not a directory with a PI0 checkpoint, nor "
                f"'{SHIPPED_EYES}'"
            )
        manifest = read_manifest(directory)
        if not manifest.cameras:
            raise ConfigError(f"settings.eyes: {directory / 'policy.json'} names no cameras")
        # TensorRT is for exported graphs.
        device = choose_device("auto" if settings.device == "tensorrt" else settings.device)
        torch.set_num_threads(settings.num_threads)
        model = load_model(directory, device, choose_dtype(settings.dtype, device))
        self.cameras = manifest.cameras
        self.feature_dim = len(manifest.cameras) * FEATURES_PER_CAMERA
        self.tower_hash = tower_hash(model, manifest)
        self._size_px, self._resize = model_shape(model).image_px, manifest.image_resize
        self._reduce = make_reduction(model)
        self._dtype: torch.dtype = model.action_out_proj.weight.dtype
        self._device = device
        # The language model, most of the weights, is let go.
        vlm = model.model.vlm
        self._tower = vlm.vision_tower.requires_grad_(requires_grad=False)
        self._project = vlm.multi_modal_projector.requires_grad_(requires_grad=False)
        # The first time is slow, and says whether it works.
        blank = np.zeros((self._size_px, self._size_px, 3), dtype=np.uint8)
        self.look(dict.fromkeys(self.cameras, blank))

    def look(self, images: Mapping[str, ImageArray]) -> Float32Array:
        """Features of one observation's images, shape (F,).

        Raises:
            InvalidCommandError: An image is missing or malformed.
        """
        pixels = pixel_values(images, self.cameras, self._size_px, self._resize)[0]
        shown = torch.tensor(pixels, device=self._device, dtype=self._dtype)
        with torch.no_grad():
            tokens = self._project(self._tower(shown).last_hidden_state)
            features: Float32Array = self._reduce(tokens).cpu().numpy()
        return np.asarray(features, dtype=np.float32)
