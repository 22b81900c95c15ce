# SPDX-License-Identifier: Apache-2.0
"""Reflexes, lost links and refused commands reach the real libfranka as a robot sends them."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest
from cell.fci_client import connect, shifted, track, wait_until

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.sim.scene import HOME_Q_RAD

franky = pytest.importorskip("franky")

pytestmark = pytest.mark.sim


@pytest.fixture
def robot(cell):
    connected = connect(cell.host)
    recover(connected)
    yield connected
    # The control box serves one client: this one must be gone before the next test connects.
    del connected


def recover(robot) -> None:
    # The call may report failure from a state that was queued before the recovery.
    robot.recover_from_errors()
    assert wait_until(lambda: not robot.has_errors)


def wait_for_abort(robot) -> str:
    """Wait until the motion is over; what libfranka has to say about it."""
    assert wait_until(lambda: not robot.is_in_control)
    with pytest.raises(franky.ControlException) as caught:
        robot.join_motion()
    return str(caught.value)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("reflex", "cartesian_reflex"),
        ("joint_reflex", "joint_reflex"),
        ("comm", "communication_constraints_violation"),
    ],
)
def test_an_injected_fault_aborts_and_is_recovered_from(robot, scene, fault, reason):
    tracker = track(robot)
    assert scene.request("inject", fault=fault) == {"was_moving": True}
    assert reason in wait_for_abort(robot)
    del tracker
    assert robot.has_errors
    assert robot.state.robot_mode == franky.RobotMode.Reflex
    with pytest.raises(franky.CommandException, match="Reflex"):
        robot.move(franky.JointMotion(np.array(HOME_Q_RAD)))
    recover(robot)
    assert robot.state.robot_mode == franky.RobotMode.Idle
    robot.move(franky.JointMotion(np.array(HOME_Q_RAD)))


def test_pushing_beyond_the_threshold_is_a_reflex(robot, scene):
    robot.move(franky.JointMotion(np.array(HOME_Q_RAD)))
    robot.set_collision_behavior([100.0] * 7, [12.0] * 3 + [30.0] * 3)
    start = robot.state.O_T_EE
    scene.request("place_wall", x_m=float(start.translation[0]) + 0.03, z_m=0.03)
    tracker = track(robot)
    tracker.set_target(shifted(start, x_m=0.06))
    assert "cartesian_reflex" in wait_for_abort(robot)
    del tracker
    assert scene.request("contact_force")["estimated_force_n"][0] > 5.0
    # Still pressed against the wall, every motion would trip again: raise, recover, back off.
    robot.set_collision_behavior([100.0] * 7, [100.0] * 6)
    recover(robot)
    robot.move(franky.CartesianMotion(start))
    assert np.linalg.norm(robot.state.O_T_EE.translation - start.translation) < 0.003


def test_missed_packets_trip_only_when_a_limit_is_set(robot, scene):
    tracker = track(robot)
    scene.request("inject", fault="missed_packet_limit", packets=20)
    scene.request("stats")
    assert robot.is_in_control
    tracker.stop()


def test_a_dropped_link_kills_the_connection_and_the_next_one_recovers(cell, robot, scene):
    tracker = track(robot)
    scene.request("inject", fault="link_drop", duration_s=1.3)
    # libfranka gives up after a second without states.
    assert wait_until(lambda: not robot.is_in_control)
    with pytest.raises(franky.NetworkException):
        robot.join_motion()
    del tracker
    again = connect(cell.host)
    assert again.state.robot_mode == franky.RobotMode.Reflex
    recover(again)
    again.move(franky.JointMotion(np.array(HOME_Q_RAD)))


def test_a_client_that_disappears_leaves_the_arm_holding(cell, scene):
    robot = connect(cell.host)
    recover(robot)
    tracker = track(robot)
    before = robot.state.O_T_EE.translation
    del tracker, robot
    again = connect(cell.host)
    assert not again.has_errors
    assert np.linalg.norm(again.state.O_T_EE.translation - before) < 0.002


def test_a_replaced_gripper_command_ends_as_aborted(cell):
    gripper = franky.Gripper(cell.host)
    closing = gripper.move_async(0.0, 0.05)
    assert gripper.stop()
    with pytest.raises(franky.CommandException, match="aborted"):
        closing.get()
    opening = gripper.open_async(0.1)
    assert opening.wait(3.0)
    assert opening.get()
    assert gripper.state.width == pytest.approx(0.08, abs=0.002)


def test_an_injected_gripper_abort_reaches_the_command(cell, scene):
    gripper = franky.Gripper(cell.host)
    closing = gripper.move_async(0.02, 0.02)
    assert wait_until(lambda: scene.request("inject", fault="gripper_abort")["was_moving"])
    with pytest.raises(franky.CommandException, match="aborted"):
        closing.get()
    # A request that found no command running aborts the next one instead.
    scene.request("inject", fault="gripper_abort")
    with pytest.raises(franky.CommandException, match="aborted"):
        gripper.move(0.05, 0.05)
    assert gripper.move(0.06, 0.05)


def test_malformed_clients_are_dropped_and_the_arm_stays(cell, scene):
    before = scene.request("stats")["num_malformed_clients"]
    for payload in (b"\xff" * 64, b"\x63\0\0\0\1\0\0\0\x0c\0\0\0", bytes(64)):
        with socket.create_connection((cell.host, 1337), timeout=2.0) as raw:
            raw.sendall(payload)
            time.sleep(0.05)
    assert wait_until(lambda: scene.request("stats")["num_malformed_clients"] >= before + 2)
    assert not connect(cell.host).has_errors


@pytest.mark.parametrize(
    ("operation", "args"),
    [
        ("reset", {}),
        ("reset", {"task": "sing", "seed": 1}),
        ("reset", {"task": "lift", "seed": "x"}),
        ("reset", {"task": "lift", "seed": -1}),
        ("reset", {"task": "lift", "seed": 1, "start_spread_m": {}}),
        ("reset", {"task": "lift", "seed": 1, "object_spread_m": [0.1]}),
        ("reset", {"task": "lift", "seed": 1, "wall": 2}),
        ("objects", {"task": []}),
        ("place_wall", {}),
        ("place_wall", {"x_m": 99}),
        ("place_wall", {"x_m": True}),
        ("inject", {}),
        ("inject", {"fault": ["reflex"]}),
        ("inject", {"fault": "link_drop", "duration_s": -1}),
        ("inject", {"fault": "reflex", "duration_s": 1}),
        ("record_stop", {}),
        ("record_start", {"duration_s": 1e9}),
        ("shutdown", {"now": 1}),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(scene, operation, args):
    before = scene.request("objects")["objects"]["button"]
    with pytest.raises(SceneError):
        scene.request(operation, **args)
    assert scene.request("objects")["objects"]["button"] == before
    assert not scene.request("stats")["is_reflex"]
