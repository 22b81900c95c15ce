# SPDX-License-Identifier: Apache-2.0
"""Settings of a compiled scene that MJCF would spread over the vendor's element tree.

The vendor's visual meshes have 242 000 faces, 10 ms an image on a CPU whatever its size. The
"lite" look draws the arm from its collision meshes (3 700 faces) and keeps only the fingers'
visuals, without shadows: 1 to 2 ms at 128 pixels.
"""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.sim.variants import SceneConfig

_VISUAL_GROUP, _COLLISION_GROUP, _HIDDEN_GROUP = 2, 3, 5
_WHITE = (0.93, 0.93, 0.93, 1.0)
_AMBIENT, _DIFFUSE = 0.2, 0.2


def apply_lite_look(model: mujoco.MjModel) -> None:
    """Choose which geometries are drawn, and cheap light."""
    finger_bodies = {i for i in range(model.nbody) if "finger" in model.body(i).name}
    for geom in range(model.ngeom):
        if int(model.geom_bodyid[geom]) in finger_bodies:
            continue
        group, is_mesh = (
            model.geom_group[geom],
            model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH,
        )
        if group == _VISUAL_GROUP:
            model.geom_group[geom] = _HIDDEN_GROUP
        elif group == _COLLISION_GROUP and is_mesh:
            model.geom_group[geom] = _VISUAL_GROUP
            model.geom_rgba[geom] = _WHITE
    model.light_castshadow[:] = False
    model.vis.headlight.ambient[:] = _AMBIENT
    model.vis.headlight.diffuse[:] = _DIFFUSE


def apply_config(model: mujoco.MjModel, config: SceneConfig, arm_dof: slice) -> None:
    """Set friction, light, anti-aliasing and camera offsets as the variant says."""
    model.dof_frictionloss[arm_dof] *= config.joint_friction_scale
    model.vis.quality.offsamples = config.multisamples
    model.vis.headlight.ambient[:] *= config.light_scale
    model.vis.headlight.diffuse[:] *= config.light_scale
    model.light_diffuse[:] *= config.light_scale
    model.light_ambient[:] *= config.light_scale
    for name, shift_m, turn_rad in (
        ("front", config.front_camera_shift_m, config.front_camera_turn_rad),
        ("wrist", config.wrist_camera_shift_m, config.wrist_camera_turn_rad),
    ):
        camera = model.camera(name).id
        model.cam_pos[camera] += shift_m
        model.cam_quat[camera] = _turned(model.cam_quat[camera], np.asarray(turn_rad))


def _turned(quat_wxyz: FloatArray, turn_rad: FloatArray) -> FloatArray:
    """Apply a rotation vector in the rotated frame's own axes."""
    rotation = Rotation.from_quat(quat_wxyz[[1, 2, 3, 0]]) * Rotation.from_rotvec(turn_rad)
    return np.asarray(rotation.as_quat()[[3, 0, 1, 2]], dtype=np.float64)
