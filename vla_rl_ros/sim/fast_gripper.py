# SPDX-License-Identifier: Apache-2.0
"""The fingers of the fast simulator, with the servo that franky_sim gives its hand."""

from __future__ import annotations

import math

import mujoco
import numpy as np

from vla_rl_ros.sim.scene_ids import SceneIds

STIFFNESS_N_PER_M = 1000.0
DAMPING_NS_PER_M = 50.0
GRASP_FORCE_N = 40.0
MOVE_FORCE_N = 70.0
# franky_sim cuts the drive for a millisecond whenever a finger is too fast. Measured, a finger
# then moves at 0.06 m/s plus 1.25 times its way to go; at coarser steps the same rule would be
# twice as fast, so the set point is moved at that speed instead.
_BASE_SPEED_M_PER_S = 0.06
_SPEED_PER_WAY_PER_S = 1.25
# A finger this far behind its set point is blocked, and the set point need not wait for it.
_BLOCKED_M = 0.004
_BLOCKED_SPEED_M_PER_S = 0.5
_AT_REST_M_PER_S = 1e-3
_EMPTY_M = 2e-3


class FastGripper:
    """Two fingers drawn by springs to a common set point that moves to the goal width.

    Attributes:
        goal_m: Width being approached.
    """

    def __init__(self, data: mujoco.MjData, ids: SceneIds) -> None:
        """Bind to the fingers; writes their part of `qfrc_applied`."""
        self._q, self._dq = data.qpos[ids.finger_qpos], data.qvel[ids.finger_dof]
        self._applied = data.qfrc_applied[ids.finger_dof]
        self.goal_m = 0.0
        self._set_point_m = self._speed_m_per_s = 0.0
        self._force_n = GRASP_FORCE_N

    def set_goal(self, width_m: float) -> None:
        """Head for a width from where the fingers are; 0 closes on what is between them."""
        self.goal_m = width_m
        self._force_n = GRASP_FORCE_N if width_m <= 0.0 else MOVE_FORCE_N
        self._set_point_m = 0.5 * self.width_m

    def advance(self, duration_s: float) -> None:
        """Move the set point; call once per reference period."""
        way_m = 0.5 * self.goal_m - self._set_point_m
        speed = _BASE_SPEED_M_PER_S + _SPEED_PER_WAY_PER_S * abs(way_m)
        lag_m = abs(self._set_point_m - 0.5 * self.width_m)
        if lag_m > _BLOCKED_M:
            speed = _BLOCKED_SPEED_M_PER_S
        step_m = math.copysign(min(speed * duration_s, abs(way_m)), way_m)
        self._set_point_m += step_m
        self._speed_m_per_s = 0.0 if lag_m > _BLOCKED_M else step_m / duration_s

    def apply(self) -> None:
        """Write the finger forces for the present state."""
        goal_m, speed, bound = self._set_point_m, self._speed_m_per_s, self._force_n
        # Plain floats: two of them are faster than numpy.
        for i, (q, dq) in enumerate(zip(self._q.tolist(), self._dq.tolist(), strict=True)):
            force = STIFFNESS_N_PER_M * (goal_m - q) + DAMPING_NS_PER_M * (speed - dq)
            self._applied[i] = min(max(force, -bound), bound)

    @property
    def width_m(self) -> float:
        """Distance between the fingers."""
        return float(self._q[0] + self._q[1])

    @property
    def is_moving(self) -> bool:
        """Whether a finger still moves."""
        return bool(np.abs(self._dq).max() > _AT_REST_M_PER_S)

    @property
    def is_grasped(self) -> bool:
        """Whether the fingers rest on something while they are to close."""
        return self.goal_m <= 0.0 and not self.is_moving and self.width_m > _EMPTY_M
