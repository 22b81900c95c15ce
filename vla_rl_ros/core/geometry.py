# SPDX-License-Identifier: Apache-2.0
"""SE(3) helpers on xyzw quaternions. Rotations go through scipy.

Increments follow the convention of HIL-SERL (arXiv 2410.21845): the translation is added in base
axes, the rotation vector is applied on the left (base axes).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.types import FloatArray, Pose


def rotation_error_rad(target_xyzw: FloatArray, measured_xyzw: FloatArray) -> FloatArray:
    """Rotation vector, base axes, that turns `measured` into `target`, shape (3,)."""
    error = Rotation.from_quat(target_xyzw) * Rotation.from_quat(measured_xyzw).inv()
    return np.asarray(error.as_rotvec(), dtype=np.float64)


def offset_pose(pose: Pose, translation_m: FloatArray, rotvec_rad: FloatArray) -> Pose:
    """Add an increment given in base axes: translation added, rotation applied on the left."""
    # scipy refuses read-only rotation vectors, which is what actions and twists carry.
    turn = Rotation.from_rotvec(np.array(rotvec_rad, dtype=np.float64))
    rotation = turn * Rotation.from_quat(pose.quat_xyzw)
    return Pose(pose.position_m + translation_m, rotation.as_quat())


def pose_increment(target: Pose, anchor: Pose) -> tuple[FloatArray, FloatArray]:
    """Inverse of `offset_pose`: translation (3,) and rotation vector (3,), anchor to target."""
    return (
        target.position_m - anchor.position_m,
        rotation_error_rad(target.quat_xyzw, anchor.quat_xyzw),
    )


def interpolate_pose(start: Pose, end: Pose, fraction: float) -> Pose:
    """Linear in position, constant angular velocity in rotation; `fraction` in [0, 1]."""
    translation, rotvec = pose_increment(end, start)
    return offset_pose(start, fraction * translation, fraction * rotvec)


def angle_between_rad(a_xyzw: FloatArray, b_xyzw: FloatArray) -> float:
    """Angle of the rotation between two unit quaternions, in [0, pi]."""
    return float(np.linalg.norm(rotation_error_rad(a_xyzw, b_xyzw)))
