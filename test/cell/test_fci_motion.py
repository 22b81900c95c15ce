# SPDX-License-Identifier: Apache-2.0
"""The real libfranka moves the simulated arm, feels a wall, and hand and scene play along."""

from __future__ import annotations

import time

import numpy as np
import pytest
from cell.fci_client import connect, shifted, track
from waiting import until

from vla_rl_ros.sim.scene import HOME_Q_RAD

franky = pytest.importorskip("franky")

pytestmark = pytest.mark.sim

STIFFNESS_N_PER_M, CLIP_M = 2000.0, 0.01


@pytest.fixture(scope="module")
def robot(cell):
    connected = connect(cell.host)
    yield connected
    connected.stop()


@pytest.fixture
def home(robot):
    """Start each test at the home posture, in free space."""
    robot.move(franky.JointMotion(np.array(HOME_Q_RAD)))
    return robot.state.O_T_EE


def test_the_arm_starts_at_home(robot):
    np.testing.assert_allclose(robot.state.q, HOME_Q_RAD, atol=2e-3)
    np.testing.assert_allclose(robot.state.O_T_EE.translation, [0.5, 0.0, 0.25], atol=2e-3)


def test_joint_and_cartesian_motions_arrive(robot, home):
    robot.move(franky.JointMotion(np.array(HOME_Q_RAD) + 0.1))
    np.testing.assert_allclose(robot.state.q, np.array(HOME_Q_RAD) + 0.1, atol=5e-3)
    robot.move(franky.CartesianMotion(shifted(home, z_m=0.03)))
    np.testing.assert_allclose(
        robot.state.O_T_EE.translation, shifted(home, z_m=0.03).translation, atol=3e-3
    )


def test_a_tracker_moves_the_arm_and_commands_arrive(robot, home):
    target = shifted(home, y_m=0.04, z_m=0.02)
    tracker = track(robot)
    try:
        tracker.set_target(target)
        assert until(
            lambda: np.linalg.norm(robot.state.O_T_EE.translation - target.translation) < 0.003
        )
        assert robot.is_in_control
        assert until(lambda: robot.state.control_command_success_rate > 0.9)
    finally:
        tracker.stop()
    assert until(lambda: robot.state.control_command_success_rate == 0.0)


def test_holding_after_a_motion_is_quiet(robot, home):
    """The joint controller must not buzz at the torque limit when the arm stands."""

    def ripple_nm() -> float:
        return np.ptp([robot.state.tau_J for _ in range(50)], axis=0).max()

    assert until(lambda: ripple_nm() < 0.5)


def test_the_error_clip_bounds_the_force_on_a_wall(robot, home, scene):
    # A wall lower than the hand: the fingertips, 1 cm in front of the TCP, touch it first.
    scene.request("place_wall", x_m=float(home.translation[0]) + 0.04, z_m=0.03)
    tracker = track(robot, CLIP_M)
    try:
        for step_m in np.linspace(0.0, 0.1, 60):
            tracker.set_target(shifted(home, x_m=float(step_m)))
            time.sleep(0.01)
        assert until(lambda: scene.request("contact_force")["force_n"][0] > 10.0)
        forces_n, estimates_n = [], []
        for _ in range(40):
            answer = scene.request("contact_force")
            forces_n.append(answer["force_n"][0])
            estimates_n.append(robot.state.O_F_ext_hat_K[0])
            time.sleep(0.005)
    finally:
        tracker.stop()
    bound_n = STIFFNESS_N_PER_M * CLIP_M
    assert 0.5 * bound_n < np.median(forces_n) < 1.2 * bound_n
    # Pushing is positive, and the estimate follows the truth.
    assert np.median(estimates_n) == pytest.approx(np.median(forces_n), rel=0.15)


def test_no_wrench_is_reported_in_free_space(robot, home):
    assert until(lambda: np.abs(robot.state.O_F_ext_hat_K).max() < 0.5)


def test_the_scene_is_reset_while_the_arm_is_tracked(robot, home, scene):
    tracker = track(robot)
    try:
        cubes = []
        for seed in range(5):
            answer = scene.request("reset", task="lift", seed=seed)
            cubes.append(tuple(answer["objects"]["cube"]["position_m"]))
        truth = scene.request("objects")
        np.testing.assert_allclose(truth["objects"]["cube"]["position_m"], cubes[-1], atol=1e-3)
        assert len(set(cubes)) == 5
        assert not truth["is_success"]
        assert robot.is_in_control
        moved_m = np.linalg.norm(robot.state.O_T_EE.translation - home.translation)
        assert moved_m < 0.003
    finally:
        tracker.stop()


def test_resets_are_repeatable(scene):
    first = scene.request("reset", task="button", seed=7)
    assert scene.request("reset", task="button", seed=7) == first
    assert scene.request("reset", task="button", seed=8) != first


def test_a_recording_has_a_row_per_step(robot, home, scene):
    scene.request("record_start", duration_s=5.0)
    robot.move(franky.CartesianMotion(shifted(home, z_m=0.02)))
    answer = scene.request("record_stop")
    rows = np.load(answer["path"])
    assert rows.shape == (answer["num_rows"], len(answer["columns"]))
    np.testing.assert_allclose(np.diff(rows[:, 0]), 0.001, atol=1e-6)
    height_m = rows[:, answer["columns"].index("tcp.z_m")]
    assert height_m[-1] - height_m[0] == pytest.approx(0.02, abs=0.003)


def test_real_time_is_kept(robot, home, scene):
    tracker = track(robot)
    try:
        assert until(lambda: scene.request("stats")["real_time_factor"] > 0.97, 10.0)
    finally:
        tracker.stop()
    assert scene.request("stats")["num_unstable_steps"] == 0
