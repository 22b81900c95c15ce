# SPDX-License-Identifier: Apache-2.0
"""Named channels with units of actions and observations, equal in simulator, graph and bags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.types import ArmState, FloatArray, GripperState, finite_array

ACTION_CHANNELS = (
    "tcp.dx_m",
    "tcp.dy_m",
    "tcp.dz_m",
    "tcp.drx_rad",
    "tcp.dry_rad",
    "tcp.drz_rad",
    "gripper.open",
)
STATE_CHANNELS = (
    "tcp.x_m",
    "tcp.y_m",
    "tcp.z_m",
    "tcp.qx",
    "tcp.qy",
    "tcp.qz",
    "tcp.qw",
    "tcp.vx_m_per_s",
    "tcp.vy_m_per_s",
    "tcp.vz_m_per_s",
    "tcp.wx_rad_per_s",
    "tcp.wy_rad_per_s",
    "tcp.wz_rad_per_s",
    "tcp.fx_n",
    "tcp.fy_n",
    "tcp.fz_n",
    "tcp.tx_nm",
    "tcp.ty_nm",
    "tcp.tz_nm",
    "gripper.width_m",
)
ACTION_DIM = len(ACTION_CHANNELS)
STATE_DIM = len(STATE_CHANNELS)
GRIPPER_INDEX = ACTION_DIM - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSpec:
    """Scale between normalised actions in [-1, 1] and SI channels.

    Attributes:
        translation_m: Increment of the target at normalised 1, per axis.
        rotation_rad: Rotation increment at normalised 1, per axis.
        control_period_s: Time one action lasts.
    """

    translation_m: float = 0.02
    rotation_rad: float = 0.1
    control_period_s: float = 0.1

    def to_si(self, normalised: FloatArray) -> FloatArray:
        """Scale actions of shape (..., 7) from [-1, 1] to SI, clipping to the range first."""
        clipped = np.clip(np.asarray(normalised, dtype=np.float64), -1.0, 1.0)
        return clipped * self._scale() + self._offset()

    def to_normalised(self, action: FloatArray) -> FloatArray:
        """Inverse of `to_si` for actions within range, shape (..., 7)."""
        return (np.asarray(action, dtype=np.float64) - self._offset()) / self._scale()

    def _scale(self) -> FloatArray:
        return np.array([self.translation_m] * 3 + [self.rotation_rad] * 3 + [0.5])

    @staticmethod
    def _offset() -> FloatArray:
        return np.array([0.0] * 6 + [0.5])


def is_open_command(action: FloatArray) -> bool:
    """Whether an SI action of shape (7,) asks for an open gripper."""
    return bool(action[GRIPPER_INDEX] >= 0.5)


def state_vector(arm: ArmState, gripper: GripperState) -> FloatArray:
    """Stack proprioception in the order of `STATE_CHANNELS`, shape (20,)."""
    return finite_array(
        np.concatenate(
            [
                arm.pose.position_m,
                arm.pose.quat_xyzw,
                arm.twist.linear_m_per_s,
                arm.twist.angular_rad_per_s,
                arm.wrench.force_n,
                arm.wrench.torque_nm,
                [gripper.width_m],
            ]
        ),
        (STATE_DIM,),
        "state",
    )
