# SPDX-License-Identifier: Apache-2.0
"""The recorder on a real graph: complete bags, and none lost to signals, disks or strangers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from node.graph_traffic import Traffic
from rclpy.executors import Executor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rosbags.highlevel import AnyReader
from std_msgs.msg import UInt8MultiArray

from vla_rl_ros.core.episode import Outcome, Phase
from vla_rl_ros.data.bag_check import check
from vla_rl_ros.data.bag_reader import Bag, read_poses
from vla_rl_ros.ros.graph import TOPICS, Topic
from vla_rl_ros.ros.nodes.recorder import RecorderNode
from vla_rl_ros.ros.parameter_dump import MISSING_KEY, ParameterDump
from vla_rl_ros.ros.qos import EVENT
from vla_rl_ros.ros.raw_intake import RawIntake
from vla_rl_ros.ros.testing import spin_until

pytestmark = pytest.mark.ros


class Cell:
    """A recorder and the traffic of a graph in one executor."""

    def __init__(self, executor: Executor, directory: Path, **parameters: object) -> None:
        self.executor = executor
        self.directory = directory
        values = {"directory": str(directory), "autostart": False, "start_free_mib": 1}
        self.recorder = RecorderNode({**values, "stop_free_mib": 1, **parameters})
        self.other = Node("traffic")
        self.health: dict[str, str] = {}
        self.level, self.sentence = -1, ""
        self.other.create_subscription(DiagnosticArray, "/diagnostics", self._on_health, EVENT)
        for node in (self.recorder, self.other):
            executor.add_node(node)
        assert self.recorder.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.recorder.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.traffic = Traffic(self.other)
        self.until(self.traffic.is_matched)

    def _on_health(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("recorder"):
                self.health = {pair.key: pair.value for pair in status.values}
                self.level, self.sentence = status.level[0], status.message

    def until(self, predicate: Callable[[], bool], timeout_s: float = 20.0) -> None:
        assert spin_until(self.executor, predicate, timeout_s)

    def received(self, count: int) -> None:
        self.until(lambda: int(self.health.get("received", 0)) >= count)


@pytest.fixture
def cell(executor: Executor, tmp_path: Path) -> Iterator[Cell]:
    made = Cell(executor, tmp_path)
    yield made
    made.recorder.trigger_shutdown()


def test_a_bag_holds_every_topic_every_message_parameters_and_commit(cell: Cell) -> None:
    traffic = cell.traffic
    for topic in TOPICS:
        if topic.qos == "LATCHED" and topic.name != "episode/state":
            traffic.send(topic.name)
    latched = sum(traffic.sent.values())
    traffic.state(Phase.RESETTING, "e1")
    cell.received(latched + 1)
    traffic.sent.clear()
    traffic.state(Phase.READY, "e1")
    traffic.state(Phase.RUNNING, "e1")
    for _ in range(5):
        for topic in TOPICS:
            if topic.qos != "LATCHED":
                traffic.send(topic.name)
        cell.executor.spin_once(timeout_sec=0.01)
    bag = cell.directory / "e1"
    cell.until(lambda: int(cell.health["written"]) >= sum(traffic.sent.values()))
    traffic.state(Phase.ENDED, "e1", Outcome.SUCCESS)
    cell.until(bag.is_dir)

    report = check(bag, [topic.name for topic in TOPICS])
    assert report.problems == ()
    counts = {topic.name.lstrip("/"): topic.num_messages for topic in report.topics}
    for topic in TOPICS:
        name = topic.name.lstrip("/")
        if topic.name == "/diagnostics":
            assert counts[name] >= traffic.sent[topic.name]
        elif topic.qos == "LATCHED" and topic.name != "episode/state":
            assert counts[name] == 1, name
        else:
            assert counts[name] == traffic.sent[topic.name], name
    opened = Bag(bag)
    assert opened.metadata("episode")["outcome"] == "success"
    assert opened.metadata("episode")["instruction"] == "lift the red cube"
    assert opened.metadata("provenance")["git_hash"]
    parameters = opened.metadata("parameters")
    assert json.loads(parameters["/recorder"])["compression"] == "zstd"
    assert "/traffic" in parameters
    assert json.loads(parameters[MISSING_KEY]) == []
    with AnyReader([bag]) as reader:
        assert len(reader.connections) == len(TOPICS)
        assert {c.topic: c.msgtype for c in reader.connections} == {
            f"/{topic.name.lstrip('/')}": topic.type for topic in TOPICS
        }
        for connection, _, raw in reader.messages():
            reader.deserialize(raw, connection.msgtype)
    stamps_ns, poses = read_poses(bag, "arm/tcp_pose")
    assert poses.shape == (5, 7)
    assert abs(stamps_ns[-1] - time.time_ns()) < 60e9
    assert cell.health["dropped"] == "0"
    assert cell.health["lost_before_intake"] == "0"


def test_nothing_but_diagnostics_is_published(cell: Cell) -> None:
    own = {"/rosout", "/parameter_events", "/recorder/transition_event", "/diagnostics"}
    published = cell.other.get_publisher_names_and_types_by_node("recorder", "/")
    assert {name for name, _ in published} <= own


def test_a_full_disk_is_an_error_in_diagnostics_and_nothing_else(
    executor: Executor, tmp_path: Path
) -> None:
    cell = Cell(executor, tmp_path, start_free_mib=10**7)
    cell.until(lambda: "no bag can be begun" in cell.sentence)
    cell.traffic.state(Phase.READY, "e1")
    cell.traffic.send_all()
    cell.until(lambda: int(cell.health["dropped"]) > 0)
    assert cell.level == 2
    assert "required" in cell.sentence
    assert cell.recorder.is_running
    assert list(tmp_path.iterdir()) == []
    cell.recorder.trigger_shutdown()


def test_malformed_states_are_counted_and_ignored(cell: Cell) -> None:
    hostile = DiagnosticArray()
    for _ in range(20):
        cell.traffic.publishers["episode/state"].publish(hostile)
    cell.traffic.state(Phase.READY, "../../evil")
    cell.until(lambda: "not a name" in cell.sentence)
    assert cell.health["bad_state.wrong_length"] == "20"
    cell.traffic.state(Phase.READY, "good")
    cell.traffic.state(Phase.ENDED, "good", Outcome.FAILURE)
    cell.until((cell.directory / "good").is_dir)


def test_deactivation_finishes_the_bag_and_activation_records_again(cell: Cell) -> None:
    cell.traffic.state(Phase.RUNNING, "e1")
    cell.traffic.send_all()
    cell.until(lambda: cell.health.get("episode") == "e1")
    cell.recorder.trigger_deactivate()
    assert Bag(cell.directory / "e1").metadata("episode")["outcome"] == "aborted"
    assert cell.recorder.trigger_activate() == TransitionCallbackReturn.SUCCESS
    cell.traffic.state(Phase.READY, "e2")
    cell.traffic.state(Phase.ENDED, "e2", Outcome.SUCCESS)
    cell.until((cell.directory / "e2").is_dir)


def test_messages_that_overflow_the_history_are_counted(executor: Executor) -> None:
    node = Node("flood")
    executor.add_node(node)
    topic = Topic(
        name="flood",
        type="std_msgs/msg/UInt8MultiArray",
        qos="EVENT",
        rate_hz=0,
        publisher="flood",
        doc="",
    )
    taken: list[int] = []
    intake = RawIntake(node, [topic], lambda m, lost: taken.extend((len(m), lost)), 60.0)
    publisher = node.create_publisher(UInt8MultiArray, "flood", EVENT)
    assert spin_until(executor, lambda: publisher.get_subscription_count() > 0)
    publisher.publish(UInt8MultiArray(data=[1]))
    assert spin_until(executor, lambda: bool(intake.drain() or taken))
    assert taken == [1, 0]
    for index in range(600):
        publisher.publish(UInt8MultiArray(data=[index % 256]))
    publisher.wait_for_all_acked()
    intake.drain()
    assert taken[2:] == [500, 100]
    assert intake.num_lost == 100
    closing_s = time.monotonic()
    intake.close()
    assert time.monotonic() - closing_s < 1.0


def test_a_silent_node_costs_its_own_parameters_only(executor: Executor) -> None:
    asker, silent = Node("asker"), Node("silent")
    executor.add_node(asker)
    try:
        silent_name = ("silent", "/")
        assert spin_until(executor, lambda: silent_name in asker.get_node_names_and_namespaces())
        dump, results = ParameterDump(asker), []
        dump.fetch(1.0, results.append)
        assert spin_until(executor, lambda: bool(results))
        assert "use_sim_time" in json.loads(results[0]["/asker"])
        assert "/silent" in json.loads(results[0][MISSING_KEY])
        dump.fetch(30.0, results.append)
        dump.close()
        assert len(results) == 1
    finally:
        silent.destroy_node()


def start_recorder(directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vla_rl_ros.ros.nodes.recorder", "--ros-args"]
    for value in (f"directory:={directory}", "start_free_mib:=1", "stop_free_mib:=1"):
        command += ["-p", value]
    return subprocess.Popen(command, env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))


@contextmanager
def recorder_process(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = start_recorder(directory)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10.0)


def play_until(
    executor: Executor, traffic: Traffic, done: Callable[[], bool], episode_id: str
) -> None:
    """Send the small topics every 10 ms until `done`, no images."""

    def step() -> bool:
        traffic.state(Phase.RUNNING, episode_id)
        traffic.send("arm/tcp_pose")
        traffic.send("policy/action")
        return done()

    assert spin_until(executor, step, 20.0)


def begin_episode(executor: Executor, directory: Path) -> Traffic:
    node = Node("traffic")
    executor.add_node(node)
    traffic = Traffic(node)
    assert spin_until(executor, traffic.is_matched, 20.0)
    mcap = directory / "e1.partial" / "e1_0.mcap"
    play_until(executor, traffic, mcap.is_file, "e1")
    begun_s = time.monotonic()
    play_until(executor, traffic, lambda: time.monotonic() > begun_s + 1.0, "e1")
    return traffic


def test_sigterm_finishes_the_bag_within_three_seconds(executor: Executor, tmp_path: Path) -> None:
    with recorder_process(tmp_path) as process:
        traffic = begin_episode(executor, tmp_path)
        stopped_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10.0) == 0
        assert time.monotonic() - stopped_s < 3.0
    bag = tmp_path / "e1"
    assert check(bag).problems == ()
    assert Bag(bag).metadata("episode")["outcome"] == "aborted"
    sent = traffic.sent["arm/tcp_pose"]
    assert len(read_poses(bag, "arm/tcp_pose")[0]) == pytest.approx(sent, abs=2)


def test_sigkill_loses_less_than_a_second_and_the_next_recorder_mends_the_bag(
    executor: Executor, tmp_path: Path
) -> None:
    with recorder_process(tmp_path) as process:
        begin_episode(executor, tmp_path)
        process.send_signal(signal.SIGKILL)
        killed_ns = time.time_ns()
        process.wait(10.0)
    assert list(tmp_path.iterdir()) == [tmp_path / "e1.partial"]
    with recorder_process(tmp_path):
        bag = tmp_path / "e1"
        assert spin_until(executor, bag.is_dir, 20.0)
    assert check(bag, [topic.name for topic in TOPICS]).problems == ()
    times_ns = [message.log_time_ns for message in Bag(bag).messages(["arm/tcp_pose"])]
    assert (killed_ns - times_ns[-1]) * 1e-9 < 1.0
    assert Bag(bag).metadata("recovery")
