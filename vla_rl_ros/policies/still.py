# SPDX-License-Identifier: Apache-2.0
"""A policy that stands still: for commissioning a cell, and for graphs without a simulator."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies.protocol import PolicyEnvironment, PolicyObservation, PolicySettings


class StillPolicy:
    """Zero increments and an open gripper, after looking at every camera of the cell."""

    def __init__(self, horizon: int, cameras: tuple[str, ...]) -> None:
        """Look at `cameras`, so that the whole path from image to target is exercised."""
        self._horizon = horizon
        self._cameras = cameras

    @property
    def horizon(self) -> int:
        """Number of elements of every chunk."""
        return self._horizon

    @property
    def cameras(self) -> tuple[str, ...]:
        """Every camera of the cell."""
        return self._cameras

    @property
    def needs_objects(self) -> bool:
        """It knows of no objects."""
        return False

    def infer(self, observation: PolicyObservation, prefix: FloatArray | None) -> FloatArray:
        """Stand still."""
        actions = np.zeros((self._horizon, ACTION_DIM))
        actions[:, GRIPPER_INDEX] = 1.0
        if prefix is not None:
            actions[: len(prefix)] = prefix[: self._horizon]
        return actions

    def reset(self) -> None:
        """Nothing to forget."""


def make(settings: PolicySettings, environment: PolicyEnvironment) -> StillPolicy:
    """Entry point of the back end."""
    return StillPolicy(settings.horizon, environment.cameras)
