# SPDX-License-Identifier: Apache-2.0
"""A trained success classifier: ``classifier.json`` and ``model.onnx``, run without torch.

The manifest says what the network wants to see and what its answer means; its hash of the weights
is checked when it is loaded. Written by `classifier_training`, read by the node
`success_classifier`, by `vla-rl-ros label` and by rewards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.types import ImageArray
from vla_rl_ros.data.label_frames import STATE_NAMES
from vla_rl_ros.policies.cpu_model import (
    MODEL_NAME,
    input_name,
    open_model,
    read_json_manifest,
    sized,
    write_json_manifest,
)
from vla_rl_ros.policies.pi0.images import camera_image

MANIFEST_NAME = "classifier.json"
FORMAT = 1
LOGIT = "logit"
_BATCH = 64


def _keys(doc: str) -> Any:  # noqa: ANN401 - stands for the type of the field
    """A field whose default is an empty mapping."""
    return field(default_factory=dict, metadata=param(doc=doc).metadata)


@dataclass(frozen=True, kw_only=True)
class ClassifierManifest:
    """What a classifier expects and means."""

    format: int = param(FORMAT, doc="Of this file.", low=FORMAT, high=FORMAT)
    name: str = param(doc="For messages and logs.")
    task: str = param(doc="What success means.")
    cameras: tuple[str, ...] = param(doc="In the order of the network's inputs.")
    image_px: int = param(doc="Side of its square images.", unit="px", low=16, high=1024)
    resize: str = param("area", doc="How images become that size.", choices=("area", "pad"))
    backbone: str = param("cnn", doc="What makes its features.", choices=("cnn", "pi0"))
    threshold: float = param(
        0.5, doc="Probability from which on a frame counts as success.", low=0.0, high=1.0
    )
    needed: int = param(3, doc="Frames that must agree.", low=1, high=100)
    window: int = param(4, doc="Among so many of the last ones.", low=1, high=100)
    checks: Mapping[str, tuple[float, ...]] = _keys(
        "Low and high of measured channels that success must keep."
    )
    model_hash: str = param("", doc="SHA-256 of the weights' file.")
    training: Mapping[str, object] = _keys("How it came about.")

    def __post_init__(self) -> None:
        """Check bounds, and that there is something to see."""
        check_bounds(self)
        if not self.cameras or not self.name:
            raise ConfigError("classifier.json needs a name and a camera or more")
        if self.needed > self.window:
            raise ConfigError(f"needed={self.needed} of window={self.window} frames")
        for channel, limits in self.checks.items():
            if channel not in STATE_NAMES or len(limits) != 2 or limits[0] > limits[1]:
                raise ConfigError(
                    f"checks.{channel}={list(limits)}: wanted is [low, high] of one of "
                    f"{', '.join(STATE_NAMES)}"
                )

    @property
    def version(self) -> str:
        """What stands in messages and rows: hash and name."""
        return f"{self.model_hash[:12]} {self.name}"


def read_manifest(directory: Path) -> ClassifierManifest:
    """Read ``classifier.json``.

    Raises:
        ConfigError: Missing or damaged; names the key.
    """
    return read_json_manifest(
        ClassifierManifest, directory / MANIFEST_NAME, "vla-rl-ros train classifier"
    )


def write_manifest(manifest: ClassifierManifest, directory: Path) -> None:
    """Write ``classifier.json`` for the weights that lie there; their hash is filled in."""
    write_json_manifest(manifest, directory / MANIFEST_NAME)


def prepared(image: ImageArray, manifest: ClassifierManifest, name: str) -> ImageArray:
    """An image in the size of the network, uint8 of shape (px, px, 3).

    Raises:
        InvalidCommandError: ``image_size``, where the image cannot be reduced by a whole factor.
    """
    return sized(image, manifest.image_px, manifest.resize, name)


class SuccessModel:
    """Runs a classifier on a CPU.

    Attributes:
        manifest: What it expects and means.
    """

    def __init__(self, directory: Path | str, num_threads: int = 1) -> None:
        """Load.

        Args:
            directory: With ``classifier.json`` and ``model.onnx``.
            num_threads: Of the inference.

        Raises:
            ConfigError: Files are missing, damaged or do not belong together.
        """
        directory = Path(directory).expanduser()
        self.manifest = read_manifest(directory)
        self._session = open_model(
            directory / MODEL_NAME, self.manifest.model_hash, self.manifest.cameras, num_threads
        )

    def probability(self, images: Mapping[str, ImageArray]) -> float:
        """Probability that the task is done, of one image per camera.

        Raises:
            InvalidCommandError: An image is missing, malformed or of a size that does not fit.
        """
        feed = {
            input_name(camera): prepared(camera_image(images, camera), self.manifest, camera)[None]
            for camera in self.manifest.cameras
        }
        return float(_sigmoid(self._session.run([LOGIT], feed)[0])[0])

    def probabilities(self, stacks: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float64]:
        """As `probability` for many frames, (n, h, w, 3) per camera; returns shape (n,)."""
        manifest = self.manifest
        missing = [name for name in manifest.cameras if name not in stacks]
        if missing:
            raise InvalidCommandError("missing_image", f"no images of {', '.join(missing)}")
        count = len(stacks[manifest.cameras[0]])
        found = [np.empty(0)]
        for first in range(0, count, _BATCH):
            feed = {
                input_name(name): np.stack(
                    [
                        prepared(image, manifest, name)
                        for image in stacks[name][first : first + _BATCH]
                    ]
                )
                for name in manifest.cameras
            }
            found.append(_sigmoid(self._session.run([LOGIT], feed)[0]))
        return np.concatenate(found)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    # Beyond +-60 nothing changes but the warnings.
    values: NDArray[np.float64] = 1.0 / (
        1.0 + np.exp(-np.clip(logits.astype(np.float64), -60, 60))
    )
    return values
