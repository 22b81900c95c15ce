# SPDX-License-Identifier: Apache-2.0
"""SE(3) helpers on xyzw quaternions.

Increments follow the convention of HIL-SERL (arXiv 2410.21845): the translation is added in base
axes, the rotation vector is applied on the left (base axes). Quaternions are multiplied as plain
floats: the arm's loop does it several times per 5 ms, and scipy needs ten times as long for one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vla_rl_ros.core.types import FloatArray, Pose

Quat = tuple[float, float, float, float]
_TINY = 1e-12


def _multiply(a: Sequence[float], b: Sequence[float]) -> Quat:
    """Hamilton product a b of xyzw quaternions: first b, then a, both in base axes."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def _exp(rotvec_rad: FloatArray) -> Quat:
    """Quaternion of a rotation vector: (sin(t/2) v/t, cos(t/2)) with t = |v|."""
    x, y, z = (float(value) for value in rotvec_rad)
    angle = math.hypot(x, y, z)
    # sin(t/2)/t tends to 1/2 - t^2/48.
    scale = math.sin(0.5 * angle) / angle if angle > 1e-4 else 0.5 - angle * angle / 48.0
    return scale * x, scale * y, scale * z, math.cos(0.5 * angle)


def _log(quat: Quat) -> FloatArray:
    """Rotation vector of a unit quaternion, angle in [0, pi]; inverse of `_exp`."""
    x, y, z, w = quat if quat[3] >= 0.0 else (-quat[0], -quat[1], -quat[2], -quat[3])
    sine = math.hypot(x, y, z)
    scale = 2.0 * math.atan2(sine, w) / sine if sine > _TINY else 2.0
    return np.array([scale * x, scale * y, scale * z])


def rotation_error_rad(target_xyzw: FloatArray, measured_xyzw: FloatArray) -> FloatArray:
    """Rotation vector, base axes, that turns `measured` into `target`, shape (3,)."""
    x, y, z, w = measured_xyzw.tolist()
    return _log(_multiply(target_xyzw.tolist(), (-x, -y, -z, w)))


def offset_pose(pose: Pose, translation_m: FloatArray, rotvec_rad: FloatArray) -> Pose:
    """Add an increment given in base axes: translation added, rotation applied on the left."""
    quat = _multiply(_exp(rotvec_rad), pose.quat_xyzw.tolist())
    return Pose(pose.position_m + translation_m, np.array(quat))


def pose_increment(target: Pose, anchor: Pose) -> tuple[FloatArray, FloatArray]:
    """Inverse of `offset_pose`: translation and rotation vector from anchor to target, (3,)."""
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
    return math.hypot(*rotation_error_rad(a_xyzw, b_xyzw).tolist())
