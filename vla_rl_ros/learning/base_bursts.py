# SPDX-License-Identifier: Apache-2.0
"""Bursts of a constant push that disturb a scripted demonstration (DART, arXiv 1703.09327).

Called by `base_episodes`.
"""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.sim.tasks import Task

_EPISODE_PART = 0.85
_GAP_TICKS = (5, 22)
_TICKS = (3, 8)
_LAST_TICK = 60
_EXPERT_PART = 0.3
_PUSH_M = 0.014
_TILT_RAD = 0.008
_YAW_RAD = 0.04
_GRIPPER_FLIP_PART = 0.15


class Bursts:
    """When pushes begin and end, and what they do to an action."""

    def __init__(self, task: Task, rng: np.random.Generator) -> None:
        """Draw when the first one comes.

        Args:
            task: Of the episode; in `Task.LIFT` some pushes turn the gripper's command round.
            rng: Source of randomness, also of all that follows.
        """
        self._task, self._rng = task, rng
        has_bursts = rng.random() < _EPISODE_PART
        # None begins after the last tick, so who waits so long waits for ever.
        self._wait = int(rng.integers(1, 12)) if has_bursts else _LAST_TICK + 1
        self._left = 0
        self._push = np.zeros(ACTION_DIM)
        self._flips_gripper = False

    def is_pushing(self, tick: int, *, is_solved: bool) -> bool:
        """Count one tick."""
        if self._left:
            self._left -= 1
            if not self._left:
                self._wait = int(self._rng.integers(*_GAP_TICKS))
        else:
            self._wait -= 1
            if self._wait <= 0 and not is_solved and tick < _LAST_TICK:
                self._begin()
        return self._left > 0

    def _begin(self) -> None:
        rng = self._rng
        self._left = int(rng.integers(*_TICKS))
        self._push[:3] = rng.uniform(-_PUSH_M, _PUSH_M, 3)
        self._push[3:5] = rng.uniform(-_TILT_RAD, _TILT_RAD, 2)
        self._push[5] = rng.uniform(-_YAW_RAD, _YAW_RAD)
        self._flips_gripper = self._task is Task.LIFT and rng.random() < _GRIPPER_FLIP_PART

    def disturbed(self, label: FloatArray) -> FloatArray:
        """A little of the expert's action and the push, SI, shape (7,)."""
        action = _EXPERT_PART * label + self._push
        is_open = label[GRIPPER_INDEX]
        action[GRIPPER_INDEX] = 1.0 - is_open if self._flips_gripper else is_open
        return action
