# SPDX-License-Identifier: Apache-2.0
"""The joint target that the simulated control box follows, and its derivatives."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.types import FloatArray

PERIOD_S = 0.001
# franky_sim's first-order filter of finite differences, kept so that motions start alike.
KEEP, TAKE = 0.95, 0.05


class JointTarget:
    """Desired joint position, velocity and acceleration of the motion that runs.

    Attributes:
        is_set: Whether there is a target; torque control has none.
        speed_rad_per_s: Unfiltered velocity of the target, shape (7,).
    """

    def __init__(self, q_rad: FloatArray, dq: FloatArray, ddq: FloatArray) -> None:
        """Write into the given arrays from now on.

        Args:
            q_rad: Desired position, shape (7,).
            dq: Desired velocity as reported, filtered, shape (7,).
            ddq: Desired acceleration as reported, filtered, shape (7,).
        """
        self._q_rad, self._dq, self._ddq = q_rad, dq, ddq
        self.speed_rad_per_s: FloatArray = np.zeros(7)
        self.is_set = False
        self._age = 0

    def clear(self) -> None:
        """Follow nothing."""
        self.is_set = False

    def hold(self, q_rad: FloatArray) -> None:
        """Stand at a position; the derivatives are zero at once.

        What is left of them would be the start of the client's next motion, and its planner fails
        on velocities of 1e-8.
        """
        self._q_rad[:] = q_rad
        self._dq[:] = self._ddq[:] = self.speed_rad_per_s[:] = 0.0
        self._age = 0
        self.is_set = True

    def follow(self, q_rad: FloatArray, *, is_new: bool) -> None:
        """Take the target of this step.

        Args:
            q_rad: Shape (7,).
            is_new: Whether it came with this step; derivatives only follow those.
        """
        if not self.is_set:
            self.hold(q_rad)
        self._age += 1
        if not is_new:
            return
        # Over as many steps as it took to come, or a late target would be a jerk.
        np.subtract(q_rad, self._q_rad, out=self.speed_rad_per_s)
        self.speed_rad_per_s /= self._age * PERIOD_S
        velocity = KEEP * self._dq + TAKE * self.speed_rad_per_s
        self._ddq *= KEEP
        self._ddq += TAKE / PERIOD_S * (velocity - self._dq)
        self._dq[:] = velocity
        self._q_rad[:] = q_rad
        self._age = 0
