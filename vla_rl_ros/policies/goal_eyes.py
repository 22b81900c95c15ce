# SPDX-License-Identifier: Apache-2.0
"""Trained eyes: ``eyes.json`` and ``model.onnx``, run without torch.

They were taught on successful episodes to see from the images alone how far the hand is from where
it will next close, open, or finish, and what is to be done; they tell a residual just that, the
way at three scales, and what they saw it by. Written by `learning.eyes_training`, read where the
setting `eyes` names their directory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.types import ImageArray
from vla_rl_ros.policies.cpu_model import (
    MODEL_NAME,
    input_name,
    open_model,
    read_json_manifest,
    sized,
    write_json_manifest,
)
from vla_rl_ros.policies.pi0.images import camera_image

Float32Array = npt.NDArray[np.float32]

MANIFEST_NAME, CHECKPOINT_NAME = "eyes.json", "trainer.pt"
FORMAT = 1
FEATURES = "features"


@dataclass(frozen=True, kw_only=True)
class EyesManifest:
    """What trained eyes expect."""

    format: int = param(FORMAT, doc="Of this file.", low=FORMAT, high=FORMAT)
    task: str = param(doc="Of the episodes they learned from.")
    source: str = param(
        doc="Where these come from; what shows the simulated cell is of no use on an arm.",
        choices=("bags", "simulator"),
    )
    cameras: tuple[str, ...] = param(doc="In the order of the network's inputs.")
    image_sizes: Mapping[str, tuple[int, ...]] = param(
        doc="Height and width of the images they learned from, by camera.", unit="px"
    )
    image_px: int = param(doc="Side of its square images.", unit="px", low=16, high=1024)
    resize: str = param("area", doc="How images become that size.", choices=("area", "pad"))
    feature_dim: int = param(doc="Width of the features.", low=1, high=4096)
    model_hash: str = param("", doc="SHA-256 of the weights' file.")
    training: Mapping[str, object] = field(
        default_factory=dict, metadata=param(doc="How they came about.").metadata
    )

    def __post_init__(self) -> None:
        """Check bounds, and that there is something to see."""
        check_bounds(self)
        if not self.cameras:
            raise ConfigError(f"{MANIFEST_NAME} names no cameras")
        for camera in self.cameras:
            size = self.image_sizes.get(camera, ())
            is_size = isinstance(size, tuple) and len(size) == 2
            if not is_size or not all(isinstance(px, int) and px > 0 for px in size):
                raise ConfigError(f"image_sizes.{camera}={size!r}: wanted is [height, width]")


def are_goal_eyes(directory: Path) -> bool:
    """Whether a directory holds trained eyes, and not a policy."""
    return (directory / MANIFEST_NAME).is_file()


def write_manifest(manifest: EyesManifest, directory: Path) -> EyesManifest:
    """Write ``eyes.json`` for the weights that lie there; their hash is filled in."""
    return write_json_manifest(manifest, directory / MANIFEST_NAME)


def read_manifest(directory: Path) -> EyesManifest:
    """Read ``eyes.json``.

    Raises:
        ConfigError: Missing or damaged; names the key.
    """
    return read_json_manifest(EyesManifest, directory / MANIFEST_NAME, "vla-rl-ros train eyes")


class GoalEyes:
    """Runs trained eyes on a CPU.

    Attributes:
        cameras: Those they look through.
        feature_dim: Width of the features.
        tower_hash: Of the weights and of how images are prepared.
    """

    def __init__(self, directory: Path, num_threads: int = 1) -> None:
        """Load.

        Args:
            directory: With ``eyes.json`` and ``model.onnx``.
            num_threads: Of the inference.

        Raises:
            ConfigError: Files are missing, damaged or do not belong together.
        """
        manifest = self._manifest = read_manifest(directory)
        self._session: Any = open_model(
            directory / MODEL_NAME, manifest.model_hash, manifest.cameras, num_threads
        )
        self.cameras = manifest.cameras
        self.feature_dim = manifest.feature_dim
        found = self._session.get_outputs()[0]
        if (found.name, found.shape[-1]) != (FEATURES, manifest.feature_dim):
            raise ConfigError(
                f"{directory / MODEL_NAME} answers {found.name} of {found.shape}, not "
                f"{manifest.feature_dim} {FEATURES}"
            )
        words = [manifest.model_hash, manifest.image_px, manifest.resize, *manifest.cameras]
        self.tower_hash = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]

    def look(self, images: Mapping[str, ImageArray]) -> Float32Array:
        """Features of one observation's images, shape (F,).

        Raises:
            InvalidCommandError: An image is missing, malformed or of a size that does not fit.
        """
        feed = {input_name(name): self._seen(images, name)[None] for name in self.cameras}
        features: Float32Array = self._session.run([FEATURES], feed)[0][0]
        return features

    def _seen(self, images: Mapping[str, ImageArray], name: str) -> ImageArray:
        manifest, image = self._manifest, camera_image(images, name)
        (height, width), (own_height, own_width) = manifest.image_sizes[name], image.shape[:2]
        # Another shape would be padded elsewhere, and everything in it be seen in another place.
        if own_height * width != own_width * height:
            raise InvalidCommandError(
                "image_size",
                f"camera '{name}' gives {own_width}x{own_height}, the eyes learned from "
                f"{width}x{height}: set the camera's width_px and height_px",
            )
        return sized(image, manifest.image_px, manifest.resize, name)
