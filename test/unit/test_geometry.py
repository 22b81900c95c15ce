# SPDX-License-Identifier: Apache-2.0
"""Quaternion helpers against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vla_rl_ros.core.geometry import (
    angle_between_rad,
    interpolate_pose,
    offset_pose,
    pose_increment,
    rotation_error_rad,
)
from vla_rl_ros.core.types import Pose

component = st.floats(-3.0, 3.0)
vectors = st.tuples(component, component, component).map(np.array)
tiny = st.floats(-1e-5, 1e-5)
tiny_vectors = st.tuples(tiny, tiny, tiny).map(np.array)


def pose_of(rotvec: np.ndarray) -> Pose:
    return Pose(np.array([0.1, 0.2, 0.3]), Rotation.from_rotvec(rotvec).as_quat())


@given(vectors, vectors | tiny_vectors)
def test_offset_and_error_agree_with_scipy(start: np.ndarray, turn: np.ndarray) -> None:
    before = pose_of(start)
    after = offset_pose(before, np.zeros(3), turn)
    expected = Rotation.from_rotvec(turn) * Rotation.from_rotvec(start)
    assert (expected * Rotation.from_quat(after.quat_xyzw).inv()).magnitude() < 1e-12
    error = Rotation.from_rotvec(rotation_error_rad(after.quat_xyzw, before.quat_xyzw))
    assert (error * Rotation.from_rotvec(turn).inv()).magnitude() < 1e-9


@given(tiny_vectors)
def test_small_rotations_keep_their_digits(turn: np.ndarray) -> None:
    before = pose_of(np.array([np.pi, 0.0, 0.0]))
    _, rotvec = pose_increment(offset_pose(before, np.zeros(3), turn), before)
    assert rotvec == pytest.approx(turn, abs=1e-15)


def test_the_two_signs_of_a_quaternion_are_one_rotation() -> None:
    quat = Rotation.from_rotvec([0.3, -0.2, 0.1]).as_quat()
    assert angle_between_rad(quat, -quat) < 1e-12
    start, end = pose_of(np.zeros(3)), Pose(np.zeros(3), -quat)
    middle = interpolate_pose(start, end, 0.5)
    half = Rotation.from_rotvec([0.15, -0.1, 0.05]).as_quat()
    assert angle_between_rad(middle.quat_xyzw, half) < 1e-12
