# SPDX-License-Identifier: Apache-2.0
"""The fingers of the fast simulator, with the servo that franky_sim gives its hand."""

from __future__ import annotations

import mujoco
import numpy as np

from vla_rl_ros.sim.scene_ids import SceneIds

STIFFNESS_N_PER_M = 1000.0
DAMPING_NS_PER_M = 50.0
MAX_FINGER_SPEED_M_PER_S = 0.05
GRASP_FORCE_N = 40.0
MOVE_FORCE_N = 70.0
_AT_REST_M_PER_S = 1e-3
_EMPTY_M = 2e-3


class FastGripper:
    """Two fingers drawn to a common goal width by springs with a speed and a force limit.

    Attributes:
        goal_m: Width being approached.
    """

    def __init__(self, data: mujoco.MjData, ids: SceneIds) -> None:
        """Bind to the fingers; writes their part of `qfrc_applied`."""
        self._q, self._dq = data.qpos[ids.finger_qpos], data.qvel[ids.finger_dof]
        self._applied = data.qfrc_applied[ids.finger_dof]
        self.goal_m = 0.0
        self._force_n = GRASP_FORCE_N

    def set_goal(self, width_m: float) -> None:
        """Head for a width; 0 closes on whatever is between the fingers."""
        self.goal_m = width_m
        self._force_n = GRASP_FORCE_N if width_m <= 0.0 else MOVE_FORCE_N

    def apply(self) -> None:
        """Write the finger forces for the present state."""
        half_m, bound = 0.5 * self.goal_m, self._force_n
        # Plain floats: two of them are faster than numpy.
        for i, (q, dq) in enumerate(zip(self._q.tolist(), self._dq.tolist(), strict=True)):
            force = STIFFNESS_N_PER_M * (half_m - q) - DAMPING_NS_PER_M * dq
            if abs(dq) > MAX_FINGER_SPEED_M_PER_S and force * dq > 0.0:
                force = -DAMPING_NS_PER_M * dq
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
