# SPDX-License-Identifier: Apache-2.0
"""Twin of `core.reference` without objects, for the inner loop of the fast simulator.

`core.reference` builds validated poses, 0.2 ms per sample; a hundred samples per simulated second
would halve the speed of the simulator. Tests hold every sample of this class against
`ReferenceInterpolator` and `clip_to_measured`. Quaternions are MuJoCo's wxyz in here.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np

from vla_rl_ros.core.impedance import ImpedanceSettings
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.types import FloatArray, Pose


def _norm(vector: FloatArray) -> float:
    return math.sqrt(float(vector.dot(vector)))


class FastReference:
    """Moves a reference to each new target at constant velocity, kept near the measured pose.

    Attributes:
        position_m: Reference position after `sample`, base frame, shape (3,).
        quat_wxyz: Reference orientation after `sample`, shape (4,).
        twist: Feed-forward twist after `sample`, linear then angular, base axes, shape (6,).
    """

    def __init__(self, settings: ImpedanceSettings, limits: ReferenceLimits) -> None:
        """Bind to clips and speed limits; call `reset` before use."""
        self._limits = limits
        self.position_m: FloatArray = np.zeros(3)
        self.quat_wxyz: FloatArray = np.array([1.0, 0.0, 0.0, 0.0])
        self.twist: FloatArray = np.zeros(6)
        self._start_m = np.zeros(3)
        self._start_wxyz = self.quat_wxyz.copy()
        self._goal_m = np.zeros(3)
        self._goal_wxyz = self.quat_wxyz.copy()
        self._translation_m = np.zeros(3)
        self._local_rotvec_rad = np.zeros(3)
        self._velocity = np.zeros(6)
        self._start_s = self._duration_s = 0.0
        self._error = np.zeros(6)
        self._clipped = np.zeros(6)
        self._vector = np.zeros(3)
        self._conjugate = np.zeros(4)
        self.set_settings(settings)

    def set_settings(self, settings: ImpedanceSettings) -> None:
        """Change the clips."""
        self._high = np.array([*settings.clip_plus_m, *settings.clip_rad])
        self._low = -np.array([*settings.clip_minus_m, *settings.clip_rad])

    @property
    def goal(self) -> Pose:
        """The pose at which the motion ends."""
        return Pose(self._goal_m, self._goal_wxyz[[1, 2, 3, 0]])

    def reset(self, pose: Pose) -> None:
        """Rest at `pose`."""
        self._goal_m[:] = self._start_m[:] = self.position_m[:] = pose.position_m
        quat_wxyz = pose.quat_xyzw[[3, 0, 1, 2]]
        self._goal_wxyz[:] = self._start_wxyz[:] = self.quat_wxyz[:] = quat_wxyz
        self.twist[:] = 0.0
        self._start_s = self._duration_s = 0.0

    def is_within_limits(self, position_m: FloatArray, quat_wxyz: FloatArray) -> bool:
        """Whether `core.reference.limit_target` would leave this target as it is.

        Args:
            position_m: Of the target, shape (3,).
            quat_wxyz: Of the target, shape (4,).
        """
        limits, vector = self._limits, self._vector
        x, y, z = position_m.tolist()
        for value, low, high in zip((x, y, z), limits.box_min_m, limits.box_max_m, strict=True):
            if not low <= value <= high:
                return False
        np.subtract(position_m, self._goal_m, out=vector)
        if _norm(vector) > limits.max_step_m:
            return False
        mujoco.mju_subQuat(vector, quat_wxyz, self._goal_wxyz)
        if _norm(vector) > limits.max_step_rad:
            return False
        _, qx, qy, _ = quat_wxyz.tolist()
        # Third component of the tool axis; -1 is straight down.
        return bool(2.0 * (qx * qx + qy * qy) - 1.0 >= math.cos(limits.max_tilt_rad))

    def set_target(
        self, position_m: FloatArray, quat_wxyz: FloatArray, now_s: float, duration_s: float
    ) -> None:
        """Head for a target, arriving after `duration_s`, or later if the speed limits ask for it.

        Args:
            position_m: Of the new goal, already within the limits, shape (3,).
            quat_wxyz: Of the new goal, shape (4,).
            now_s: Simulated time.
            duration_s: Time to take.
        """
        self.sample(now_s)
        self._start_m[:], self._start_wxyz[:] = self.position_m, self.quat_wxyz
        self._goal_m[:], self._goal_wxyz[:] = position_m, quat_wxyz
        np.subtract(self._goal_m, self._start_m, out=self._translation_m)
        mujoco.mju_subQuat(self._local_rotvec_rad, self._goal_wxyz, self._start_wxyz)
        self._start_s = now_s
        self._duration_s = max(
            duration_s,
            _norm(self._translation_m) / self._limits.max_speed_m_per_s,
            _norm(self._local_rotvec_rad) / self._limits.max_speed_rad_per_s,
        )
        mujoco.mju_rotVecQuat(self._vector, self._local_rotvec_rad, self._start_wxyz)
        self._velocity[:3] = self._translation_m
        self._velocity[3:] = self._vector
        self._velocity /= self._duration_s

    def sample(self, now_s: float) -> None:
        """Write reference and feed-forward of `now_s` into the attributes."""
        elapsed_s = max(0.0, now_s - self._start_s)
        if elapsed_s >= self._duration_s:
            self.position_m[:], self.quat_wxyz[:] = self._goal_m, self._goal_wxyz
            self.twist[:] = 0.0
            return
        fraction = elapsed_s / self._duration_s
        np.multiply(self._translation_m, fraction, out=self.position_m)
        self.position_m += self._start_m
        self.quat_wxyz[:] = self._start_wxyz
        mujoco.mju_quatIntegrate(self.quat_wxyz, self._local_rotvec_rad, fraction)
        self.twist[:] = self._velocity

    def clip_to_measured(self, position_m: FloatArray, quat_wxyz: FloatArray) -> None:
        """Pull the sampled reference to within the error clip of the measured TCP pose.

        Args:
            position_m: Measured position, shape (3,).
            quat_wxyz: Measured orientation, shape (4,).
        """
        error, clipped = self._error, self._clipped
        np.subtract(self.position_m, position_m, out=error[:3])
        mujoco.mju_subQuat(self._vector, self.quat_wxyz, quat_wxyz)
        mujoco.mju_rotVecQuat(error[3:], self._vector, quat_wxyz)
        np.maximum(error, self._low, out=clipped)
        np.minimum(clipped, self._high, out=clipped)
        saturated = clipped != error
        if not saturated.any():
            return
        np.add(position_m, clipped[:3], out=self.position_m)
        mujoco.mju_negQuat(self._conjugate, quat_wxyz)
        mujoco.mju_rotVecQuat(self._vector, clipped[3:], self._conjugate)
        self.quat_wxyz[:] = quat_wxyz
        mujoco.mju_quatIntegrate(self.quat_wxyz, self._vector, 1.0)
        self.twist[saturated] = 0.0
