# SPDX-License-Identifier: Apache-2.0
"""Between observations and promised actions on one side and the tensors of a PI0 on the other.

Numpy alone, so that the `pi0` and `onnx` back ends see the same numbers. Called by `policy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies.action_codec import ActionCodec
from vla_rl_ros.policies.manifest import PolicyManifest
from vla_rl_ros.policies.pi0.images import pixel_values
from vla_rl_ros.policies.pi0.prompt import PromptEncoder, TokenArray
from vla_rl_ros.policies.protocol import PolicyObservation
from vla_rl_ros.policies.state_codec import StateCodec

Float32Array: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What the weights say about themselves.

    Attributes:
        horizon: Rows of an answer.
        action_dim: Numbers per row, padding included.
        state_dim: Length of the state vector, padding included.
        image_px: Side of the images.
        vocabulary_size: Number of tokens.
    """

    horizon: int
    action_dim: int
    state_dim: int
    image_px: int
    vocabulary_size: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelInputs:
    """One observation.

    Attributes:
        pixels: In [-1, 1], (1, cameras, 3, px, px).
        tokens: Instruction, (1, n).
        state: Normalised and padded, (1, state_dim).
    """

    pixels: Float32Array
    tokens: TokenArray
    state: Float32Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A prefix in the model's own numbers.

    Attributes:
        actions: Normalised, zeros where nothing is promised, (1, H, action_dim).
        num_rows: Rows that are promised.
        num_locked: The first of them, which are decided.
        num_used: Numbers per row that mean something; the others are padding.
        conditioning: What to do with it.
    """

    actions: Float32Array
    num_rows: int
    num_locked: int
    num_used: int
    conditioning: Conditioning


class Translation:
    """Translates for one checkpoint."""

    def __init__(self, manifest: PolicyManifest, shape: ModelShape, directory: Path) -> None:
        """Check that weights, manifest and tokenizer belong together.

        Args:
            manifest: What the numbers mean.
            shape: What the weights expect.
            directory: Holds ``tokenizer.json``.

        Raises:
            ConfigError: They do not; names the field.
        """
        self._manifest = manifest
        self._shape = shape
        section = manifest.state
        self._state = StateCodec(section.channels, section.mean, section.std)
        self._action = ActionCodec(manifest.action)
        self._check(manifest, shape)
        self._prompt = PromptEncoder(directory, manifest.prompt, shape.vocabulary_size)

    def _check(self, manifest: PolicyManifest, shape: ModelShape) -> None:
        for field, said, known, is_exact in (
            ("horizon", manifest.horizon or shape.horizon, shape.horizon, True),
            ("image_px", manifest.image_px or shape.image_px, shape.image_px, True),
            ("state.channels", self._state.dim, shape.state_dim, False),
            ("action.dim", self._action.dim, shape.action_dim, False),
            ("prefix.max_locked", manifest.prefix.max_locked, shape.horizon - 1, False),
        ):
            if said > known or (is_exact and said != known):
                most = "" if is_exact else "at most "
                raise ConfigError(
                    f"policy.json: {field} says {said}, config.json of the weights {most}{known}: "
                    "the two files belong to different checkpoints"
                )

    @property
    def anchor(self) -> Anchor:
        """What the gate has to add the increments to."""
        return self._action.anchor

    def inputs(self, observation: PolicyObservation) -> ModelInputs:
        """Preprocess one observation.

        Raises:
            InvalidCommandError: An image is missing or of a wrong size, the instruction has
                unknown words, or the state is malformed.
        """
        manifest, shape = self._manifest, self._shape
        state = np.zeros((1, shape.state_dim), dtype=np.float32)
        state[0, : self._state.dim] = self._state.encode(observation)
        return ModelInputs(
            pixels=pixel_values(
                observation.images, manifest.cameras, shape.image_px, manifest.image_resize
            ),
            tokens=self._prompt.encode(observation.instruction)[None],
            state=state,
        )

    def blank_inputs(self) -> ModelInputs:
        """Grey images, one token and a mean state, to warm a model up with."""
        shape, cameras = self._shape, len(self._manifest.cameras)
        return ModelInputs(
            pixels=np.zeros((1, cameras, 3, shape.image_px, shape.image_px), dtype=np.float32),
            tokens=np.zeros((1, 1), dtype=np.int64),
            state=np.zeros((1, shape.state_dim), dtype=np.float32),
        )

    def plan(self, observation: PolicyObservation, prefix: Prefix | None) -> Plan | None:
        """Bring a prefix into the model's numbers, re-anchored to the observation.

        Returns:
            None where there is nothing to condition on.
        """
        if prefix is None or prefix.conditioning is Conditioning.NONE:
            return None
        is_lock = prefix.conditioning is Conditioning.LOCK
        num_locked = min(prefix.num_locked, self._shape.horizon)
        num_rows = num_locked if is_lock else min(len(prefix.actions), self._shape.horizon)
        if num_rows == 0:
            return None
        rows = self._action.encode(prefix.actions[:num_rows], observation)
        return self._padded(rows, num_locked, prefix.conditioning)

    def blank_plan(self, conditioning: Conditioning, num_locked: int, num_rows: int) -> Plan:
        """A plan of mean actions, to warm a model up with."""
        return self._padded(np.zeros((num_rows, self._action.dim)), num_locked, conditioning)

    def _padded(self, rows: FloatArray, num_locked: int, conditioning: Conditioning) -> Plan:
        padded = np.zeros((1, self._shape.horizon, self._shape.action_dim), dtype=np.float32)
        padded[0, : len(rows), : self._action.dim] = rows
        return Plan(
            actions=padded,
            num_rows=len(rows),
            num_locked=num_locked,
            num_used=self._action.dim,
            conditioning=conditioning,
        )

    def actions(
        self, rows: Float32Array, observation: PolicyObservation, prefix: Prefix | None
    ) -> FloatArray:
        """Turn answers of the model into increments.

        Args:
            rows: Normalised and padded, (samples, H, action_dim).
            observation: What the model saw.
            prefix: What was promised.

        Returns:
            SI, (samples, H, 7).
        """
        used = rows[:, :, : self._action.dim].astype(np.float64)
        return np.stack([self._action.decode(row, observation, prefix) for row in used])
