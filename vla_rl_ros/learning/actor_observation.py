# SPDX-License-Identifier: Apache-2.0
"""What the residual actor sees, as one vector with named channels.

The lock-step training, the `residual_actor` node and whoever turns recordings into rows build the
vector here, so that the same tick gives the same numbers everywhere. Needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.spec import STATE_CHANNELS
from vla_rl_ros.learning.acting import AnyFloatArray, Float32Array

PHASE_CHANNEL = "chunk.phase"
_VERSION = 1
"""Changes whenever a channel is computed differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorObservationSpec:
    """Channels of an observation: state, phase of the chunk, image features.

    Attributes:
        state_channels: Names of the state's channels that the actor sees, in this order.
        feature_dim: Width of the image features, F; 0 where the policy has none.
        tower_hash: Of the vision tower and the reduction that made the features; empty for none.
    """

    state_channels: tuple[str, ...] = STATE_CHANNELS
    feature_dim: int = 0
    tower_hash: str = ""

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if unknown := [name for name in self.state_channels if name not in STATE_CHANNELS]:
            raise ConfigError(f"ActorObservationSpec.state_channels: '{unknown[0]}' is unknown")
        if self.feature_dim < 0 or (self.feature_dim > 0) != bool(self.tower_hash):
            raise ConfigError(
                f"ActorObservationSpec: feature_dim={self.feature_dim} with "
                f"tower_hash='{self.tower_hash}': features and their hash come together"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every channel, length O."""
        features = (f"feature.{number}" for number in range(self.feature_dim))
        return (*self.state_channels, PHASE_CHANNEL, *features)

    @property
    def dim(self) -> int:
        """Width of an observation, O."""
        return len(self.state_channels) + 1 + self.feature_dim

    @property
    def version(self) -> str:
        """Short hash; observations with equal ones mean the same. For `RowLayout.obs_version`."""
        text = "\n".join((str(_VERSION), *self.names, self.tower_hash))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def vector(
        self, state: AnyFloatArray, phase: float, features: Iterable[float] | None = None
    ) -> Float32Array:
        """Stack one tick's observation.

        Args:
            state: Proprioception at the tick, all of `core.spec.STATE_CHANNELS`, shape (20,).
            phase: Index of the element that is played, as part of the chunk's horizon, in [0, 1];
                1 where nothing is played.
            features: Of the images whose inference made the chunk, shape (F,); zeros where nothing
                is played yet. May be left out where F is 0.

        Returns:
            float32, shape (O,).

        Raises:
            InvalidCommandError: A wrong length, or a number that is not finite.
        """
        chosen = np.asarray(state, dtype=np.float32)
        if chosen.shape != (len(STATE_CHANNELS),):
            raise InvalidCommandError("wrong_length", f"state has shape {chosen.shape}, not (20,)")
        if self.state_channels != STATE_CHANNELS:
            chosen = chosen[[STATE_CHANNELS.index(name) for name in self.state_channels]]
        seen = np.asarray(() if features is None else features, dtype=np.float32)
        if seen.shape != (self.feature_dim,):
            raise InvalidCommandError(
                "wrong_length", f"features have shape {seen.shape}, not ({self.feature_dim},)"
            )
        vector: Float32Array = np.concatenate([chosen, [np.float32(phase)], seen])
        if not np.isfinite(vector).all():
            raise InvalidCommandError("not_finite", "a channel of the observation is not finite")
        return vector


def phase_of(index: int | None, horizon: int) -> float:
    """Phase of element `index` of a chunk with `horizon` elements; 1 where nothing is played."""
    return 1.0 if index is None else index / horizon


def no_features(spec: ActorObservationSpec) -> Float32Array:
    """What stands for the features before the first chunk: zeros, shape (F,)."""
    return np.zeros(spec.feature_dim, dtype=np.float32)
