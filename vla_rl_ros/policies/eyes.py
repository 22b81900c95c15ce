# SPDX-License-Identifier: Apache-2.0
"""A policy whose image features are made by something else than the policy.

A residual learns from features of the images. A policy behind a server gives none, and one that is
weak because it does not see well gives poor ones; another frozen vision tower looks in its place.
Called by `protocol.make_policy` where the setting `eyes` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.types import FloatArray, ImageArray
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyObservation, Reseedable

Float32Array = npt.NDArray[np.float32]


class Eyes(Protocol):
    """Turns the images of an observation into features."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras in the order of their features."""

    @property
    def feature_dim(self) -> int:
        """Width of the features, F."""

    @property
    def tower_hash(self) -> str:
        """Of what makes them; features with equal ones mean the same."""

    def look(self, images: Mapping[str, ImageArray]) -> Float32Array:
        """Features, shape (F,).

        Raises:
            InvalidCommandError: An image is missing or malformed.
        """


class SeeingPolicy:
    """A policy that acts as before, and features that are not its own."""

    def __init__(self, policy: ChunkPolicy, eyes: Eyes) -> None:
        """Put them together.

        Args:
            policy: Acts.
            eyes: Look at the images of every answer.
        """
        self._policy, self._eyes = policy, eyes
        self._seen: Float32Array = np.zeros(eyes.feature_dim, np.float32)

    @property
    def horizon(self) -> int:
        """That of the policy."""
        return self._policy.horizon

    @property
    def cameras(self) -> tuple[str, ...]:
        """Those of the policy, then those that only the eyes look at."""
        return tuple(dict.fromkeys((*self._policy.cameras, *self._eyes.cameras)))

    @property
    def needs_objects(self) -> bool:
        """As the policy does."""
        return self._policy.needs_objects

    @property
    def anchor(self) -> Anchor:
        """That of the policy."""
        return self._policy.anchor

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """Those of the policy."""
        return self._policy.conditionings

    @property
    def max_locked(self) -> int:
        """That of the policy."""
        return self._policy.max_locked

    @property
    def feature_dim(self) -> int:
        """That of the eyes."""
        return self._eyes.feature_dim

    @property
    def tower_hash(self) -> str:
        """That of the eyes."""
        return self._eyes.tower_hash

    def features(self) -> Float32Array:
        """What the eyes saw at the last `infer`; zeros before the first."""
        return self._seen

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """Let the policy answer and the eyes look.

        Raises:
            InvalidCommandError: As the policy, or an image of the eyes is missing.
        """
        try:
            # First, because the answer may have to come from a server.
            self._seen = self._eyes.look(observation.images)
        except InvalidCommandError as error:
            raise InvalidCommandError(error.reason, f"settings.eyes: {error}") from error
        return self._policy.infer(observation, prefix)

    def reset(self) -> None:
        """Let the policy forget."""
        self._policy.reset()

    def reseed(self, seed: int) -> None:
        """Begin the policy's noise anew, where it has some."""
        if isinstance(self._policy, Reseedable):
            self._policy.reseed(seed)
