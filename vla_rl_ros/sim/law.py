# SPDX-License-Identifier: Apache-2.0
"""The Cartesian impedance law that franky runs at 1 kHz, in numpy on MuJoCo's own kinematics.

    wrench = K clip(e) + D (twist_d - J dq)
    torque = J' wrench + N (K_n (q_n - q) - D_n dq),    N = 1 - J' (J J')^-1 J

with e = (position error, rotation vector), base axes, as `core.impedance.spring_wrench` defines
it, then limited in rate and size, plus gravity and Coriolis torques. Tests hold the two against
each other. Written for the inner loop: arrays are allocated once and bound to one `MjData`, and
what depends on the configuration only is recomputed by `refresh`, every 10 ms.
"""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.linalg.lapack import dposv

from vla_rl_ros.core.impedance import ImpedanceSettings
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.sim.fast_reference import FastReference
from vla_rl_ros.sim.scene_ids import SceneIds

TORQUE_LIMITS_NM = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)
TORQUE_RATE_NM_PER_S = 1000.0
_REGULARISATION = 1e-12 * np.eye(6)
_IDENTITY = np.eye(7)


class ImpedanceLaw:
    """Spring between a reference and the TCP of the arm in one `MjData`.

    Attributes:
        jacobian: Of the TCP at the last `refresh`, base axes, shape (6, 7).
        torque_nm: Wanted joint torque of the last `apply`, before limits and bias, shape (7,).
        tcp_position_m: Live view of the TCP position, shape (3,).
        tcp_quat_wxyz: TCP orientation at the last `refresh` or `apply`, shape (4,).
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        ids: SceneIds,
        settings: ImpedanceSettings,
    ) -> None:
        """Bind to the arm.

        Args:
            model: Compiled scene.
            data: Its state; the law writes the arm's part of `qfrc_applied`.
            ids: Addresses of the scene.
            settings: Stiffness, damping, clips.
        """
        self._model, self._data, self._site = model, data, ids.tcp_site
        # Views into MjData stay valid for its life; fetching them anew costs as much as the maths.
        self._q, self._dq = data.qpos[ids.arm_qpos], data.qvel[ids.arm_dof]
        self._applied, self._bias = data.qfrc_applied[ids.arm_dof], data.qfrc_bias[ids.arm_dof]
        self.tcp_position_m: FloatArray = data.site_xpos[self._site]
        self._tcp_matrix = data.site_xmat[self._site]
        self.tcp_quat_wxyz: FloatArray = np.zeros(4)
        self._jacobian_all = np.zeros((6, model.nv))
        self._jacobian_arm = self._jacobian_all[:, ids.arm_dof]
        self.jacobian: FloatArray = np.zeros((6, 7))
        self._error, self._rotvec = np.zeros(6), np.zeros(3)
        self._error_m, self._error_rad = self._error[:3], self._error[3:]
        self._joint_damping, self._posture_torque = np.zeros((7, 7)), np.zeros(7)
        self.torque_nm: FloatArray = np.zeros(7)
        self._limited, self._last, self._scratch = np.zeros(7), np.zeros(7), np.zeros(7)
        self._limit = np.array(TORQUE_LIMITS_NM)
        self._posture_q = np.zeros(7)
        self.set_settings(settings)

    def set_settings(self, settings: ImpedanceSettings) -> None:
        """Change stiffness, damping and clips at the next `refresh`."""
        self._stiffness = np.repeat(
            [settings.stiffness_n_per_m, settings.stiffness_nm_per_rad], 3
        ).astype(np.float64)
        self._damping = np.repeat(
            [settings.damping_ns_per_m, settings.damping_nms_per_rad], 3
        ).astype(np.float64)
        self._high = np.array([*settings.clip_plus_m, *settings.clip_rad])
        self._low = -np.array([*settings.clip_minus_m, *settings.clip_rad])
        self._posture_stiffness = np.array(settings.nullspace_stiffness_nm_per_rad)
        self._posture_damping = np.array(settings.nullspace_damping_nms_per_rad)

    def engage(self) -> None:
        """Start from zero torque, with the present joint angles as posture of the null space."""
        self._last[:] = 0.0
        self._posture_q[:] = self._q

    def refresh(self) -> None:
        """Recompute Jacobian, null space and posture torque for the present configuration."""
        mujoco.mju_mat2Quat(self.tcp_quat_wxyz, self._tcp_matrix)
        mujoco.mj_jacSite(
            self._model, self._data, self._jacobian_all[:3], self._jacobian_all[3:], self._site
        )
        jacobian = self.jacobian
        jacobian[:] = self._jacobian_arm
        transposed = jacobian.T
        # A fifth of the time of numpy's solve.
        _, into_task, _ = dposv(jacobian @ transposed + _REGULARISATION, jacobian)
        null_space = _IDENTITY - transposed @ into_task
        np.matmul(transposed * self._damping, jacobian, out=self._joint_damping)
        self._joint_damping += null_space * self._posture_damping
        posture = self._posture_stiffness * (self._posture_q - self._q)
        np.matmul(null_space, posture, out=self._posture_torque)

    def offset_tcp(self, increment: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Measured TCP pose plus an increment, as `core.geometry.offset_pose` adds it.

        Args:
            increment: Translation and rotation vector, base axes; further elements are ignored.

        Returns:
            Position (3,) and quaternion wxyz (4,).
        """
        quat_wxyz, conjugate = np.zeros(4), np.zeros(4)
        mujoco.mju_mat2Quat(quat_wxyz, self._tcp_matrix)
        mujoco.mju_negQuat(conjugate, quat_wxyz)
        mujoco.mju_rotVecQuat(self._rotvec, increment[3:6].copy(), conjugate)
        mujoco.mju_quatIntegrate(quat_wxyz, self._rotvec, 1.0)
        return self.tcp_position_m + increment[:3], quat_wxyz

    def apply(self, reference: FastReference, hold_s: float) -> None:
        """Write the torque for the present state into `data.qfrc_applied`.

        Args:
            reference: Sampled reference with its feed-forward twist.
            hold_s: How long this torque will stay; bounds its change.
        """
        error, torque, limited = self._error, self.torque_nm, self._limited
        np.subtract(reference.position_m, self.tcp_position_m, out=self._error_m)
        mujoco.mju_mat2Quat(self.tcp_quat_wxyz, self._tcp_matrix)
        mujoco.mju_subQuat(self._rotvec, reference.quat_wxyz, self.tcp_quat_wxyz)
        mujoco.mju_rotVecQuat(self._error_rad, self._rotvec, self.tcp_quat_wxyz)
        np.maximum(error, self._low, out=error)
        np.minimum(error, self._high, out=error)
        error *= self._stiffness
        error += self._damping * reference.twist
        np.matmul(error, self.jacobian, out=torque)
        np.matmul(self._joint_damping, self._dq, out=self._scratch)
        torque -= self._scratch
        torque += self._posture_torque
        self._limit_rate(TORQUE_RATE_NM_PER_S * hold_s)
        np.maximum(self._last, -self._limit, out=limited)
        np.minimum(limited, self._limit, out=limited)
        np.add(limited, self._bias, out=self._applied)

    def _limit_rate(self, step_nm: float) -> None:
        change = self._scratch
        np.subtract(self.torque_nm, self._last, out=change)
        np.maximum(change, -step_nm, out=change)
        np.minimum(change, step_nm, out=change)
        self._last += change
