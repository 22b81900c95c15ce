# SPDX-License-Identifier: Apache-2.0
"""Algebra of target poses one after the other, for the action codecs: all rows at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.types import FloatArray, Pose

_SHORTEST_AXIS = 1e-6


class PosePath(NamedTuple):
    """Poses in the base frame.

    Attributes:
        position_m: Shape (n, 3).
        rotation: n rotations.
    """

    position_m: FloatArray
    rotation: Rotation

    def pose(self, i: int) -> Pose:
        """Pose i."""
        return Pose(self.position_m[i], self.rotation[i].as_quat())

    def after(self, start: Pose) -> PosePath:
        """The same path with one more pose in front."""
        position_m = np.concatenate([start.position_m[None], self.position_m])
        quat_xyzw = np.concatenate([start.quat_xyzw[None], self.rotation.as_quat()])
        return PosePath(position_m, Rotation.from_quat(quat_xyzw))

    def tail(self) -> PosePath:
        """The same path without its first pose."""
        return PosePath(self.position_m[1:], self.rotation[1:])


def walk(start: Pose, steps: FloatArray) -> PosePath:
    """Follow increments as `core.geometry.offset_pose` adds them.

    Args:
        start: Pose before the first increment.
        steps: Translations and rotation vectors, base axes, shape (n, 6).

    Returns:
        n + 1 poses, the first one is `start`.
    """
    position_m = np.cumsum(np.concatenate([start.position_m[None], steps[:, :3]]), axis=0)
    turns = np.concatenate([start.quat_xyzw[None], Rotation.from_rotvec(steps[:, 3:]).as_quat()])
    return PosePath(position_m, _products(Rotation.from_quat(turns)))


def walk_inside(start: Pose, steps: FloatArray, turns: Rotation) -> FloatArray:
    """Increments in base axes of increments that are given in the axes of the moving TCP.

    Args:
        start: Pose before the first increment.
        steps: Translations in the axes of the pose before, shape (n, 3).
        turns: Rotations in the same axes.

    Returns:
        Shape (n, 6).
    """
    quats = np.concatenate([start.quat_xyzw[None], turns.as_quat()])[: len(steps)]
    if len(quats) == 0:
        return np.zeros((0, 6))
    # Turns about own axes multiply on the right: the product of the inverses, inverted.
    before = _products(Rotation.from_quat(quats).inv()).inv()
    return np.concatenate([before.apply(steps), before.apply(turns.as_rotvec())], axis=1)


def steps_between(path: PosePath) -> FloatArray:
    """Inverse of `walk`: increments from each pose of n + 1 to the next, shape (n, 6)."""
    turns = path.rotation[1:] * path.rotation[:-1].inv()
    return np.concatenate([np.diff(path.position_m, axis=0), turns.as_rotvec()], axis=1)


def read_rotation(rows: FloatArray, representation: str) -> Rotation:
    """Rotations out of rows of a model.

    Args:
        rows: Shape (n, 3) for ``rotvec``, (n, 6) for ``r6d`` (first two columns of the matrix,
            as in UMI) and ``r6d_rows`` (first two rows, as in pytorch3d).
        representation: One of these names.

    Raises:
        InvalidCommandError: ``no_rotation``, when the two axes span no plane.
    """
    if representation == "rotvec":
        return Rotation.from_rotvec(rows)
    # Gram-Schmidt, arXiv 1812.07035 (B).
    first, is_long = _unit(rows[:, :3])
    second, is_apart = _unit(
        rows[:, 3:] - np.sum(first * rows[:, 3:], axis=1, keepdims=True) * first
    )
    if not (is_long and is_apart):
        raise InvalidCommandError("no_rotation", "two axes of a predicted rotation span no plane")
    axes = np.stack([first, second, np.cross(first, second)], axis=2)
    return Rotation.from_matrix(axes.transpose(0, 2, 1) if representation == "r6d_rows" else axes)


def write_rotation(rotation: Rotation, representation: str) -> FloatArray:
    """Inverse of `read_rotation`, shape (n, 3) or (n, 6)."""
    if representation == "rotvec":
        return np.asarray(rotation.as_rotvec())
    matrix: FloatArray = rotation.as_matrix()
    axes = matrix if representation == "r6d_rows" else matrix.transpose(0, 2, 1)
    return axes[:, :2].reshape(-1, 6)


def _unit(vectors: FloatArray) -> tuple[FloatArray, bool]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    is_long = bool((length > _SHORTEST_AXIS).all())
    return vectors / np.maximum(length, _SHORTEST_AXIS), is_long


def _products(turns: Rotation) -> Rotation:
    """Running products r_i ... r_1 r_0 in log2(n) passes (Hillis and Steele, 1986)."""
    quats, reach = turns.as_quat(), 1
    while reach < len(quats):
        later, earlier = Rotation.from_quat(quats[reach:]), Rotation.from_quat(quats[:-reach])
        quats = np.concatenate([quats[:reach], (later * earlier).as_quat()])
        reach *= 2
    return Rotation.from_quat(quats)
