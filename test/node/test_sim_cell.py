# SPDX-License-Identifier: Apache-2.0
"""The scene on the graph, against a running simulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState, MultiDOFJointState
from std_srvs.srv import Trigger
from waiting import until

from vla_rl_ros.ros.channels import decode_channels, from_stamp
from vla_rl_ros.ros.codecs import SUCCESS_CHANNELS, decode_objects
from vla_rl_ros.ros.nodes.sim_cell import SimCellNode
from vla_rl_ros.ros.qos import EVENT, SENSOR
from vla_rl_ros.ros.testing import spin_until

pytestmark = [pytest.mark.ros, pytest.mark.sim]

START_TIMEOUT_S = 50.0
# A loopback address per test process, so that simulators of other workers do not collide.
HOST = f"127.66.{os.getpid() // 250 % 250}.{1 + os.getpid() % 250}"


class Simulator:
    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "vla_rl_ros.sim.cell_process"),
                *("--host", HOST, "--run-dir", str(run_dir)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        socket = run_dir / "scene.sock"
        until(lambda: socket.exists() or self.process.poll() is not None, START_TIMEOUT_S)
        assert socket.exists()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    made = Simulator(tmp_path_factory.mktemp("cell"))
    yield made
    made.kill()


@pytest.fixture
def cell(executor, simulator, monkeypatch) -> SceneOnGraph:
    monkeypatch.setenv("VLA_RL_RUN_DIR", str(simulator.run_dir))
    return SceneOnGraph(executor)


def listen(user: Node) -> list[DiagnosticStatus]:
    """Everything that nodes say of themselves from now on."""
    said: list[DiagnosticStatus] = []
    user.create_subscription(
        DiagnosticArray, "/diagnostics", lambda message: said.extend(message.status), EVENT
    )
    return said


class SceneOnGraph:
    def __init__(self, executor, **overrides: object) -> None:
        self.executor = executor
        self.node = SimCellNode({"autostart": True, **overrides})
        self.user = Node("user")
        self.said = listen(self.user)
        for node in (self.node, self.user):
            executor.add_node(node)
        self.objects: list[MultiDOFJointState] = []
        self.success: list[JointState] = []
        self.user.create_subscription(
            MultiDOFJointState, "sim/objects", self.objects.append, SENSOR
        )
        self.user.create_subscription(JointState, "sim/success", self.success.append, EVENT)
        assert spin_until(executor, lambda: self.node.is_running, 30.0)

    def ask(self, service: str) -> tuple[bool, str]:
        client = self.user.create_client(Trigger, f"sim_cell/{service}")
        assert spin_until(self.executor, client.service_is_ready)
        future = client.call_async(Trigger.Request())
        assert spin_until(self.executor, future.done)
        return future.result().success, future.result().message

    def set(self, **values: object) -> None:
        for name, value in values.items():
            assert self.node.set_parameters([Parameter(name, value=value)])[0].successful

    def fresh_objects(self):
        asked_ns = time.time_ns()
        newest = lambda: from_stamp(self.objects[-1].header.stamp)  # noqa: E731
        assert spin_until(self.executor, lambda: bool(self.objects) and newest() > asked_ns)
        return decode_objects(self.objects[-1])


def test_truth_is_published_in_the_base_frame_and_undecided_at_first(cell: SceneOnGraph) -> None:
    poses = cell.fresh_objects()
    assert set(poses) == {"cube", "button", "hole", "peg"}
    assert spin_until(cell.executor, lambda: bool(cell.success))
    channels = decode_channels(cell.success[-1], SUCCESS_CHANNELS)
    assert channels == {"success.probability": 0.0, "success.decided": 0.0}


def test_objects_come_at_their_rate(cell: SceneOnGraph) -> None:
    assert spin_until(cell.executor, lambda: len(cell.objects) > 40)
    stamps_ns = [from_stamp(message.header.stamp) for message in cell.objects]
    # The median ignores what a busy machine delays.
    assert np.median(np.diff(stamps_ns)) == pytest.approx(20e6, rel=0.3)


def test_a_reset_starts_where_prepare_said_and_moves_the_objects(cell: SceneOnGraph) -> None:
    cell.set(task="button", seed=11)
    is_prepared, prepared = cell.ask("prepare")
    is_reset, reset = cell.ask("reset")
    assert is_prepared
    assert is_reset
    answer = json.loads(reset)
    offset_m = np.array(json.loads(prepared)["start_offset_m"])
    start_m = np.array(answer["start"]["position_m"])
    assert np.allclose(start_m - offset_m, [0.5, 0.0, 0.25])
    cube = cell.fresh_objects()["cube"]
    assert np.allclose(cube.position_m, answer["objects"]["cube"]["position_m"], atol=2e-3)


def test_equal_seeds_give_equal_starts(cell: SceneOnGraph) -> None:
    answers = []
    for seed in (1, 2, 1):
        cell.set(task="lift", seed=seed)
        answers.append(cell.ask("prepare")[1])
    assert answers[0] == answers[2] != answers[1]


def test_a_task_that_the_scene_does_not_have_is_refused(cell: SceneOnGraph) -> None:
    result = cell.node.set_parameters([Parameter("task", value="juggle")])[0]
    assert not result.successful
    assert "juggle" in result.reason


def test_health_is_in_the_diagnostics(cell: SceneOnGraph) -> None:
    def keys() -> set[str]:
        return {pair.key for status in cell.said[-1:] for pair in status.values}

    assert spin_until(cell.executor, lambda: "real_time_factor" in keys())
    assert {"sim_time_s", "backlog_s", "episode_real_time_factor"} <= keys()


@pytest.mark.parametrize("run_dir", ["", "/nowhere"])
def test_without_a_simulator_it_does_not_configure_and_says_why(
    executor, monkeypatch: pytest.MonkeyPatch, run_dir: str
) -> None:
    monkeypatch.setenv("VLA_RL_RUN_DIR", run_dir)
    node, user = SimCellNode({"autostart": False}), Node("user")
    executor.add_node(node)
    executor.add_node(user)
    said = listen(user)
    assert node.trigger_configure() != TransitionCallbackReturn.SUCCESS
    expected = "VLA_RL_RUN_DIR is not set" if not run_dir else "no answer from the scene"
    assert spin_until(executor, lambda: any(expected in status.message for status in said))


def test_a_check_says_why_a_task_cannot_begin_and_touches_nothing(cell: SceneOnGraph) -> None:
    cell.set(task="lift", seed=4)
    assert cell.ask("reset")[0]
    before = cell.fresh_objects()
    for task, problem in (
        ("lift", ""),
        ("button", ""),
        ("peg", "the peg is not in the hand"),
        ("peg_out", "the peg is not in the hand"),
    ):
        cell.set(task=task)
        is_answered, answer = cell.ask("check")
        assert is_answered
        assert json.loads(answer) == {"problem": problem}
    after = cell.fresh_objects()
    for name, pose in before.items():
        # The spring of the button still settles.
        assert np.allclose(pose.position_m, after[name].position_m, atol=2e-3)


def test_a_killed_simulator_shows_as_an_error_and_not_as_old_truth(
    executor, tmp_path: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLA_RL_RUN_DIR", str(simulator.run_dir))
    cell = SceneOnGraph(executor)
    cell.fresh_objects()
    simulator.kill()
    assert spin_until(executor, lambda: any("has not stepped" in s.message for s in cell.said))
    num_objects = len(cell.objects)
    assert not spin_until(executor, lambda: len(cell.objects) > num_objects + 1, 0.3)
    is_reset, sentence = cell.ask("reset")
    assert not is_reset
    assert "scene" in sentence
