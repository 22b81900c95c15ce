# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics of the simulated arm, to place it at a TCP pose without moving there."""

from __future__ import annotations

import mujoco
import numpy as np

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.core.impedance import ImpedanceSettings
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.sim.scene import HOME_Q_RAD
from vla_rl_ros.sim.scene_ids import SceneIds

_TOLERANCE = 1e-8
_MAX_ITERATIONS = 50
_DAMPING = 1e-8 * np.eye(6)
_POSTURE_WEIGHTS = np.array(ImpedanceSettings().nullspace_stiffness_nm_per_rad)


def place_arm(model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds, pose: Pose) -> FloatArray:
    """Put the arm at rest with its TCP at `pose` and its elbow as near home as that allows.

    Args:
        model: Compiled scene.
        data: State; joint angles and velocities of the arm are written.
        ids: Addresses of the scene.
        pose: Wanted TCP pose, base frame.

    Returns:
        The joint angles, shape (7,).

    Raises:
        SceneError: If the pose is out of reach.
    """
    q: FloatArray = data.qpos[ids.arm_qpos]
    q[:] = HOME_Q_RAD
    data.qvel[ids.arm_dof] = 0.0
    jacobian = np.zeros((6, model.nv))
    for _ in range(_MAX_ITERATIONS):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        error = _pose_error(data, ids, pose)
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], ids.tcp_site)
        arm = jacobian[:, ids.arm_dof]
        turn = _elbow_turn(arm, q)
        if np.linalg.norm(error) + np.linalg.norm(turn) < _TOLERANCE:
            return q.copy()
        q += arm.T @ np.linalg.solve(arm @ arm.T + _DAMPING, error) + turn
    raise SceneError(f"no joint angles for the TCP at {pose.position_m.tolist()} m")


def _pose_error(data: mujoco.MjData, ids: SceneIds, pose: Pose) -> FloatArray:
    """Translation and rotation vector still to go, base axes, shape (6,)."""
    error, measured, local = np.zeros(6), np.zeros(4), np.zeros(3)
    np.subtract(pose.position_m, data.site_xpos[ids.tcp_site], out=error[:3])
    mujoco.mju_mat2Quat(measured, data.site_xmat[ids.tcp_site])
    mujoco.mju_subQuat(local, pose.quat_xyzw[[3, 0, 1, 2]], measured)
    mujoco.mju_rotVecQuat(error[3:], local, measured)
    return error


def _elbow_turn(jacobian: FloatArray, q_rad: FloatArray) -> FloatArray:
    """Motion that keeps the TCP and takes the elbow towards home, shape (7,)."""
    direction = np.linalg.svd(jacobian)[2][6]
    pull = direction @ (_POSTURE_WEIGHTS * (HOME_Q_RAD - q_rad))
    turn: FloatArray = direction * pull / (direction @ (_POSTURE_WEIGHTS * direction))
    return turn
