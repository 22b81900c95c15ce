# SPDX-License-Identifier: Apache-2.0
"""Where the hand and the objects are in the live scene, true poses in the base frame.

Works on live data between two steps, in the thread that steps the simulation, or on a copy.
"""

from __future__ import annotations

import mujoco
import numpy as np

from vla_rl_ros.core.types import Pose
from vla_rl_ros.sim.scene import BLOCK_HALF_HEIGHT_M, BUTTON_CAP_HALF_HEIGHT_M
from vla_rl_ros.sim.scene_ids import SceneIds


def tcp_pose(data: mujoco.MjData, ids: SceneIds) -> Pose:
    """TCP in the base frame; the quaternion's largest component is positive."""
    quat_wxyz = np.empty(4)
    mujoco.mju_mat2Quat(quat_wxyz, data.site_xmat[ids.tcp_site])
    return Pose(data.site_xpos[ids.tcp_site], quat_wxyz[[1, 2, 3, 0]])


def object_poses(data: mujoco.MjData, ids: SceneIds) -> dict[str, Pose]:
    """What a privileged expert sees, base frame.

    Returns:
        ``cube``: its centre; ``button``: middle of the cap's top; ``hole``: middle of the hole at
        the top of its block; ``peg``: its centre, the tip being 35 mm along its z axis.
    """
    return {
        "cube": _body_pose(data, ids.bodies["cube"], 0.0),
        "button": _body_pose(data, ids.bodies["button"], BUTTON_CAP_HALF_HEIGHT_M),
        "hole": _body_pose(data, ids.bodies["block"], BLOCK_HALF_HEIGHT_M),
        "peg": _body_pose(data, ids.bodies["peg"], 0.0),
    }


def _body_pose(data: mujoco.MjData, body: int, raised_m: float) -> Pose:
    return Pose(np.add(data.xpos[body], (0.0, 0.0, raised_m)), data.xquat[body][[1, 2, 3, 0]])
