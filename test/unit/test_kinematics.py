# SPDX-License-Identifier: Apache-2.0
"""Forward kinematics against the simulator's model, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.kinematics import (
    flange_matrix,
    hand_tcp_matrix,
    matrix_pose,
    pose_matrix,
    solve_joints,
)
from vla_rl_ros.core.types import Pose

READY_RAD = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])
LOW_RAD = np.array([-2.3, -1.5, -2.4, -2.7, -2.4, 0.8, -2.6])
HIGH_RAD = np.array([2.3, 1.5, 2.4, -0.4, 2.4, 3.9, 2.6])
joints = st.lists(st.floats(0.0, 1.0), min_size=7, max_size=7).map(
    lambda fractions: LOW_RAD + np.array(fractions) * (HIGH_RAD - LOW_RAD)
)


def test_the_stretched_arm_is_as_long_as_its_links() -> None:
    # All axes in one plane: 333 + 316 + 384 mm up, 107 mm down to the flange, 88 mm aside.
    flange = flange_matrix(np.zeros(7))
    np.testing.assert_allclose(
        flange[:3, 3], [0.088, 0.0, 0.333 + 0.316 + 0.384 - 0.107], atol=1e-15
    )
    np.testing.assert_allclose(flange[:3, :3], np.diag([1.0, -1.0, -1.0]), atol=1e-15)


def test_the_hand_points_straight_down_when_ready() -> None:
    tcp, flange = hand_tcp_matrix(READY_RAD), flange_matrix(READY_RAD)
    np.testing.assert_allclose(tcp[:3, :3], np.diag([1.0, -1.0, -1.0]), atol=1e-12)
    np.testing.assert_allclose(flange[:3, 3] - tcp[:3, 3], [0.0, 0.0, 0.1034], atol=1e-12)


def test_it_agrees_with_the_model_of_the_simulator() -> None:
    mujoco = pytest.importorskip("mujoco")
    from vla_rl_ros.sim.scene import SceneConfig, compile_model

    model, ids = compile_model(SceneConfig())
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    for _ in range(50):
        joint_rad = rng.uniform(LOW_RAD, HIGH_RAD)
        data.qpos[ids.arm_qpos] = joint_rad
        mujoco.mj_kinematics(model, data)
        tcp = hand_tcp_matrix(joint_rad)
        np.testing.assert_allclose(tcp[:3, 3], data.site_xpos[ids.tcp_site], atol=1e-6)
        np.testing.assert_allclose(tcp[:3, :3].ravel(), data.site_xmat[ids.tcp_site], atol=1e-6)


def test_many_rows_equal_one_at_a_time() -> None:
    rows = np.random.default_rng(1).uniform(LOW_RAD, HIGH_RAD, (3, 4, 7))
    together = flange_matrix(rows)
    assert together.shape == (3, 4, 4, 4)
    assert np.array_equal(together[1, 2], flange_matrix(rows[1, 2]))


@given(joints, st.integers(0, 2**32 - 1))
def test_a_pose_nearby_is_reached_exactly(joint_rad: np.ndarray, seed: int) -> None:
    tool = pose_matrix(Pose(np.array([0.01, 0.02, 0.1]), np.array([0.0, 0.0, 0.6, 0.8])))
    near = joint_rad + np.random.default_rng(seed).uniform(-0.03, 0.03, 7)
    wanted = flange_matrix(joint_rad) @ tool
    solved = solve_joints(matrix_pose(wanted), near, tool)
    np.testing.assert_allclose(flange_matrix(solved) @ tool, wanted, atol=1e-9)


def test_a_pose_beyond_the_arm_is_refused() -> None:
    far = Pose(np.array([2.0, 0.0, 0.5]), np.array([1.0, 0.0, 0.0, 0.0]))
    with pytest.raises(InvalidCommandError, match="out_of_reach"):
        solve_joints(far, READY_RAD, np.eye(4))
