# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics of the simulated arm, to place it at a TCP pose without moving there."""

from __future__ import annotations

import mujoco
import numpy as np

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.sim.scene import HOME_Q_RAD
from vla_rl_ros.sim.scene_ids import SceneIds

_TOLERANCE = 1e-8
_MAX_ITERATIONS = 50
_DAMPING = 1e-8 * np.eye(6)


def place_arm(model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds, pose: Pose) -> FloatArray:
    """Put the arm into the configuration near home whose TCP is at `pose`, at rest.

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
    error, measured, local = np.zeros(6), np.zeros(4), np.zeros(3)
    target_wxyz = pose.quat_xyzw[[3, 0, 1, 2]]
    for _ in range(_MAX_ITERATIONS):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        np.subtract(pose.position_m, data.site_xpos[ids.tcp_site], out=error[:3])
        mujoco.mju_mat2Quat(measured, data.site_xmat[ids.tcp_site])
        mujoco.mju_subQuat(local, target_wxyz, measured)
        mujoco.mju_rotVecQuat(error[3:], local, measured)
        if np.linalg.norm(error) < _TOLERANCE:
            return q.copy()
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], ids.tcp_site)
        arm = jacobian[:, ids.arm_dof]
        q += arm.T @ np.linalg.solve(arm @ arm.T + _DAMPING, error)
    raise SceneError(f"no joint angles for the TCP at {pose.position_m.tolist()} m")
