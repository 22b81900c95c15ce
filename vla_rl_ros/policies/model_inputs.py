# SPDX-License-Identifier: Apache-2.0
"""Observations under the names a foreign model knows, as `inputs` of its manifest lists them."""

from __future__ import annotations

from functools import partial
from typing import Protocol, TypeAlias

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.spec import STATE_DIM
from vla_rl_ros.core.types import FloatArray, ImageArray, finite_array
from vla_rl_ros.policies.manifest import InputSource, PolicyManifest
from vla_rl_ros.policies.pi0.images import camera_image, fit, shrink
from vla_rl_ros.policies.protocol import PolicyObservation
from vla_rl_ros.policies.state_codec import StateCodec

InputValue: TypeAlias = ImageArray | FloatArray | str


class _Read(Protocol):
    def __call__(self, observation: PolicyObservation) -> InputValue: ...


class ModelInputs:
    """Collects what the manifest lists under `inputs`."""

    def __init__(self, manifest: PolicyManifest) -> None:
        """Prepare every input.

        Raises:
            ConfigError: No inputs, or an unknown channel.
        """
        if not manifest.inputs:
            raise ConfigError("inputs is empty: say which name of the model gets what")
        self._reads: dict[str, _Read] = {
            key: _reader(source, manifest) for key, source in manifest.inputs.items()
        }

    def read(self, observation: PolicyObservation) -> dict[str, InputValue]:
        """Name of the model to value: uint8 image (h, w, 3), vector or text.

        Raises:
            InvalidCommandError: An image is missing or malformed, the state is not finite, or
                joint angles are missing.
        """
        finite_array(observation.state, (STATE_DIM,), "state")
        return {key: read(observation) for key, read in self._reads.items()}


def _reader(source: InputSource, manifest: PolicyManifest) -> _Read:
    if isinstance(source, tuple):
        return StateCodec(source).encode
    if source == "instruction":
        return _instruction
    if source == "state":
        section = manifest.state
        return StateCodec(section.channels, section.mean, section.std).encode
    return partial(
        _image,
        camera=source.removeprefix("camera."),
        size_px=manifest.image_px,
        resize=manifest.image_resize,
    )


def _instruction(observation: PolicyObservation) -> str:
    return observation.instruction


def _image(
    observation: PolicyObservation, *, camera: str, size_px: int, resize: str
) -> ImageArray:
    image = camera_image(observation.images, camera)
    if size_px == 0:
        return image
    return shrink(image, size_px, camera) if resize == "area" else fit(image, size_px)
