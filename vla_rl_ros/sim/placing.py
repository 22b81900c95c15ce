# SPDX-License-Identifier: Apache-2.0
"""Puts things where they are to be in the live scene: objects, the peg in the hand, the wall.

All functions work on live data between two steps and must run in the thread that steps the
simulation. Called by the scene's service and by the fast simulator.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.sim.layouts import Layout
from vla_rl_ros.sim.scene import (
    BLOCK_HALF_HEIGHT_M,
    BUTTON_BASE_HALF_M,
    PEG_HALF_WIDTH_M,
    PEG_IN_HAND_M,
    PEG_PARKING_M,
    WALL_HALF_M,
    WALL_PARKING_M,
)
from vla_rl_ros.sim.scene_ids import SceneIds
from vla_rl_ros.sim.scene_poses import tcp_pose


def apply_layout(
    model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds, layout: Layout
) -> None:
    """Put everything but the arm where the layout says, at rest, between two steps.

    The peg goes into the hand where the hand is now, fingers closed on it. For the other tasks
    the fingers stay as they are: opening them is the gripper's job.

    Args:
        model: Compiled scene; the peg's weight and the finger stops are set in it.
        data: Live state.
        ids: Addresses of the scene.
        layout: Wanted start.
    """
    mujoco.mj_kinematics(model, data)
    _place_free(data, ids, "cube", layout.cube)
    button_z, block_z = BUTTON_BASE_HALF_M[2], BLOCK_HALF_HEIGHT_M
    data.mocap_pos[ids.mocap["button_base"]] = *layout.button_xy_m, button_z
    data.mocap_pos[ids.mocap["block"]] = *layout.hole_xy_m, block_z
    data.qpos[ids.button_qpos] = data.qvel[ids.button_dof] = 0.0
    _place_peg(model, data, ids, is_in_hand=layout.has_peg_in_hand)
    data.xfrc_applied[:] = 0.0
    # The solver starts from its last answer; what it found in another scene must not leak in.
    data.qacc_warmstart[:] = 0.0
    mujoco.mj_forward(model, data)


def _place_peg(
    model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds, *, is_in_hand: bool
) -> None:
    is_welded = ids.peg_weld is not None
    if ids.peg_weld is not None:
        data.eq_active[ids.peg_weld] = is_in_hand
    model.body_gravcomp[ids.bodies["peg"]] = 0.0 if is_in_hand and not is_welded else 1.0
    # A welded peg does not touch the fingers; stops take the place of its sides.
    stop = PEG_HALF_WIDTH_M if is_in_hand and is_welded else 0.0
    for joint in ids.finger_joints:
        model.jnt_range[joint, 0] = stop
    if not is_in_hand:
        _place_free(data, ids, "peg", Pose(np.asarray(PEG_PARKING_M), np.array([0, 0, 0, 1.0])))
        return
    data.qpos[ids.finger_qpos] = PEG_HALF_WIDTH_M
    data.qvel[ids.finger_dof] = 0.0
    tcp = tcp_pose(data, ids)
    axis = data.site_xmat[ids.tcp_site].reshape(3, 3)[:, 2]
    _place_free(data, ids, "peg", Pose(tcp.position_m + PEG_IN_HAND_M * axis, tcp.quat_xyzw))


def park_peg(model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds) -> None:
    """Take the peg out of the hand and out of reach, so that the empty hand may go anywhere."""
    _place_peg(model, data, ids, is_in_hand=False)
    mujoco.mj_forward(model, data)


def _place_free(data: mujoco.MjData, ids: SceneIds, name: str, pose: Pose) -> None:
    quat_wxyz = pose.quat_xyzw[[3, 0, 1, 2]]
    data.qpos[ids.free_qpos[name]] = np.concatenate([pose.position_m, quat_wxyz])
    data.qvel[ids.free_dof[name]] = 0.0


def place_wall(
    model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds, face_m: FloatArray
) -> None:
    """Stand the wall so that the middle of its face towards the robot is at `face_m`, (3,)."""
    data.mocap_pos[ids.mocap["wall"]] = np.add(face_m, (WALL_HALF_M[0], 0.0, 0.0))
    mujoco.mj_forward(model, data)


def park_wall(model: mujoco.MjModel, data: mujoco.MjData, ids: SceneIds) -> None:
    """Put the wall back out of reach and out of sight."""
    data.mocap_pos[ids.mocap["wall"]] = WALL_PARKING_M
    mujoco.mj_forward(model, data)
