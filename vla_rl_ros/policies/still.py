# SPDX-License-Identifier: Apache-2.0
"""A policy that stands still: for commissioning a cell, and for graphs without a simulator."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.prefix import Conditioning, Prefix
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

    @property
    def anchor(self) -> Anchor:
        """It works with either; this is the default of the gate."""
        return Anchor.MEASURED

    @property
    def conditionings(self) -> frozenset[Conditioning]:
        """It repeats what is locked."""
        return frozenset({Conditioning.NONE, Conditioning.LOCK})

    @property
    def max_locked(self) -> int:
        """Any prefix will do."""
        return self._horizon

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """Stand still."""
        actions = np.zeros((self._horizon, ACTION_DIM))
        actions[:, GRIPPER_INDEX] = 1.0
        if prefix is not None:
            locked = prefix.actions[: min(prefix.num_locked, self._horizon)]
            actions[: len(locked)] = locked
        return actions

    def reset(self) -> None:
        """Nothing to forget."""


def make(settings: PolicySettings, environment: PolicyEnvironment) -> StillPolicy:
    """Entry point of the back end."""
    return StillPolicy(settings.horizon, environment.cameras)
