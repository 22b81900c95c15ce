# SPDX-License-Identifier: Apache-2.0
"""Reflexes, lost links and refused commands reach the real libfranka as a robot sends them."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from cell.fci_client import connect, shifted, track
from waiting import until

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.sim.scene import HOME_Q_RAD

franky = pytest.importorskip("franky")

pytestmark = pytest.mark.sim


class Connection:
    """The one client that the control box serves; replaced when its link has died."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.robot = connect(host)

    def renew(self):
        self.close()
        self.robot = connect(self.host)
        return self.robot

    def close(self) -> None:
        self.robot = None
        # An exception that was looked at holds the old client in a cycle.
        gc.collect()


@pytest.fixture(scope="module")
def connection(cell):
    made = Connection(cell.host)
    yield made
    made.close()


@pytest.fixture
def robot(connection):
    """The arm at home and without errors."""
    prepare(connection.robot)
    return connection.robot


def prepare(robot) -> None:
    recover(robot)
    robot.set_collision_behavior([100.0] * 7, [100.0] * 6)
    robot.move(franky.JointMotion(np.array(HOME_Q_RAD)))


def recover(robot) -> None:
    # The call may report failure from a state that was queued before the recovery.
    robot.recover_from_errors()
    assert until(lambda: not robot.has_errors)


def wait_for_abort(robot) -> str:
    """Wait until the motion is over; what libfranka has to say about it."""
    assert until(lambda: not robot.is_in_control)
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


def test_a_dropped_link_kills_the_connection_and_the_next_one_recovers(connection, scene):
    # Not by the fixture: it would keep the dead client, and its socket, alive.
    prepare(connection.robot)
    tracker = track(connection.robot)
    scene.request("inject", fault="link_drop", duration_s=1.3)
    # libfranka gives up after a second without states.
    assert until(lambda: not connection.robot.is_in_control)
    with pytest.raises(franky.NetworkException):
        connection.robot.join_motion()
    del tracker
    again = connection.renew()
    assert again.state.robot_mode == franky.RobotMode.Reflex
    prepare(again)


def test_a_second_client_is_refused_at_once(connection, robot):
    with pytest.raises(franky.NetworkException):
        connect(connection.host)
    assert not robot.has_errors


def test_a_client_that_disappears_leaves_the_arm_holding(connection):
    prepare(connection.robot)
    before = connection.robot.state.O_T_EE.translation
    tracker = track(connection.robot)
    del tracker
    again = connection.renew()
    assert not again.has_errors
    assert np.linalg.norm(again.state.O_T_EE.translation - before) < 0.002


@pytest.fixture
def gripper(cell):
    """The hand, open."""
    connected = franky.Gripper(cell.host)
    connected.open(0.1)
    yield connected
    del connected
    gc.collect()


def test_a_stopped_gripper_command_ends_as_aborted(gripper):
    closing = gripper.move_async(0.0, 0.02)
    assert until(lambda: gripper.state.width < 0.075)
    assert gripper.stop()
    with pytest.raises(franky.CommandException, match="aborted"):
        closing.get()
    assert 0.01 < gripper.state.width < 0.079
    assert gripper.open(0.1)
    assert gripper.state.width == pytest.approx(0.08, abs=0.002)


def test_an_injected_gripper_abort_reaches_the_command(gripper, scene):
    closing = gripper.move_async(0.0, 0.02)
    assert until(lambda: gripper.state.width < 0.075)
    assert scene.request("inject", fault="gripper_abort") == {"was_moving": True}
    with pytest.raises(franky.CommandException, match="aborted"):
        closing.get()
    # Where no command runs it is the next one that is aborted.
    assert scene.request("inject", fault="gripper_abort") == {"was_moving": False}
    with pytest.raises(franky.CommandException, match="aborted"):
        gripper.move(0.05, 0.05)
    assert gripper.move(0.06, 0.05)


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
    was_reflex = scene.request("stats")["is_reflex"]
    with pytest.raises(SceneError):
        scene.request(operation, **args)
    assert scene.request("objects")["objects"]["button"] == before
    assert scene.request("stats")["is_reflex"] == was_reflex
