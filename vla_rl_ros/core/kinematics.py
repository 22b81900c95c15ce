# SPDX-License-Identifier: Apache-2.0
"""Kinematics of the FR3 from its joint angles to its flange, and the nearest way back.

Used by the codecs of policies that speak in joint angles. Dimensions are Franka's published
Denavit-Hartenberg parameters in Craig's (modified) convention; FR3 and Panda share them.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.geometry import pose_increment
from vla_rl_ros.core.types import FloatArray, Pose

NUM_JOINTS = 7

# a_(i-1) [m], d_i [m], alpha_(i-1) [rad] of joints 1 to 7 and the flange.
_A_M = (0.0, 0.0, 0.0, 0.0825, -0.0825, 0.0, 0.088, 0.0)
_D_M = (0.333, 0.0, 0.316, 0.0, 0.384, 0.0, 0.0, 0.107)
_ALPHA_RAD = np.array([0.0, -0.5, 0.5, 0.5, -0.5, 0.5, 0.5, 0.0]) * np.pi

# The hand is mounted turned by -45 degrees; its TCP lies between the finger tips.
_HAND_TCP = np.eye(4)
_HAND_TCP[:3, :3] = Rotation.from_euler("z", -0.25 * np.pi).as_matrix()
_HAND_TCP[2, 3] = 0.1034

_TOLERANCE = 1e-11
_MAX_ITERATIONS = 50
_DAMPING = 1e-10 * np.eye(6)


def flange_matrix(joint_rad: FloatArray) -> FloatArray:
    """Pose of the flange in the base frame.

    Args:
        joint_rad: Joint angles, shape (..., 7).

    Returns:
        Homogeneous matrices, shape (..., 4, 4).
    """
    flange: FloatArray = _frames(joint_rad)[-1]
    return flange


def hand_tcp_matrix(joint_rad: FloatArray) -> FloatArray:
    """Pose of the Franka hand's TCP in the base frame, shapes as for `flange_matrix`."""
    return flange_matrix(joint_rad) @ _HAND_TCP


def solve_joints(pose: Pose, near_rad: FloatArray, tool: FloatArray) -> FloatArray:
    """Joint angles that put a tool at a pose, reached by the shortest steps from given ones.

    Newton steps of least norm, so the elbow goes where `near_rad` leaves it.

    Args:
        pose: Wanted pose of the tool, base frame.
        near_rad: Joint angles to start from, shape (7,).
        tool: Tool in the flange's frame, shape (4, 4).

    Returns:
        Joint angles, shape (7,). Joint limits are the caller's.

    Raises:
        InvalidCommandError: ``out_of_reach``.
    """
    joint_rad = np.array(near_rad, dtype=np.float64)
    for _ in range(_MAX_ITERATIONS):
        frames = _frames(joint_rad)
        reached = frames[-1] @ tool
        error = np.concatenate(pose_increment(pose, matrix_pose(reached)))
        if np.abs(error).max() < _TOLERANCE:
            return joint_rad
        axes = frames[:NUM_JOINTS, :3, 2]
        arms = reached[:3, 3] - frames[:NUM_JOINTS, :3, 3]
        jacobian = np.concatenate([np.cross(axes, arms), axes], axis=1).T
        joint_rad += jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + _DAMPING, error)
    raise InvalidCommandError("out_of_reach", f"TCP at {pose.position_m.tolist()} m")


def matrix_path(matrices: FloatArray) -> tuple[FloatArray, Rotation]:
    """Positions (n, 3) and n rotations of homogeneous matrices, shape (n, 4, 4)."""
    return matrices[:, :3, 3], Rotation.from_matrix(matrices[:, :3, :3])


def matrix_pose(matrix: FloatArray) -> Pose:
    """Pose of one homogeneous matrix, shape (4, 4)."""
    return Pose(matrix[:3, 3], Rotation.from_matrix(matrix[:3, :3]).as_quat())


def pose_matrix(pose: Pose) -> FloatArray:
    """Homogeneous matrix of a pose, shape (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(pose.quat_xyzw).as_matrix()
    matrix[:3, 3] = pose.position_m
    return matrix


def _frames(joint_rad: FloatArray) -> FloatArray:
    """Frames of the seven joints and the flange in the base frame, shape (8, ..., 4, 4)."""
    joint_rad = np.asarray(joint_rad, dtype=np.float64)
    angles = np.concatenate([joint_rad, np.zeros((*joint_rad.shape[:-1], 1))], axis=-1)
    frame = np.broadcast_to(np.eye(4), (*joint_rad.shape[:-1], 4, 4))
    frames = []
    for i in range(NUM_JOINTS + 1):
        frame = frame @ _link(angles[..., i], i)
        frames.append(frame)
    return np.stack(frames)


def _link(angle_rad: FloatArray, i: int) -> FloatArray:
    """Craig (3.6): RotX(alpha) TransX(a) RotZ(angle) TransZ(d), shape (..., 4, 4)."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    cos_alpha, sin_alpha = np.cos(_ALPHA_RAD[i]), np.sin(_ALPHA_RAD[i])
    link = np.zeros((*np.shape(angle_rad), 4, 4))
    link[..., 0, 0], link[..., 0, 1], link[..., 0, 3] = cos, -sin, _A_M[i]
    link[..., 1, 0], link[..., 1, 1] = sin * cos_alpha, cos * cos_alpha
    link[..., 1, 2], link[..., 1, 3] = -sin_alpha, -sin_alpha * _D_M[i]
    link[..., 2, 0], link[..., 2, 1] = sin * sin_alpha, cos * sin_alpha
    link[..., 2, 2], link[..., 2, 3] = cos_alpha, cos_alpha * _D_M[i]
    link[..., 3, 3] = 1.0
    return link
