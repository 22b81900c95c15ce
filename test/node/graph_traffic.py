# SPDX-License-Identifier: Apache-2.0
"""Traffic of a whole graph for tests of the recorder: every topic, at a rate, with counts.

Run as a program it plays one episode: ``graph_traffic.py ID SECONDS [SCALE]`` prints, as JSON, how
many messages it sent on each topic.
"""

from __future__ import annotations

import array
import json
import sys
import time
from collections import Counter

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from vla_rl_ros.core.episode import EpisodeState, Outcome, Phase
from vla_rl_ros.ros.endpoints import message_type
from vla_rl_ros.ros.episode_codec import encode_episode
from vla_rl_ros.ros.graph import TOPICS
from vla_rl_ros.ros.qos import PUBLISHER_QOS

IMAGE_PX = 128


class Traffic:
    """Publishers of all topics of the graph on one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.sent: Counter[str] = Counter()
        self.publishers = {
            topic.name: node.create_publisher(
                message_type(topic.type), topic.name, PUBLISHER_QOS[topic.qos]
            )
            for topic in TOPICS
        }
        self._messages = {topic.name: _message(topic.type) for topic in TOPICS}

    def send(self, name: str) -> None:
        message = self._messages[name]
        if hasattr(message, "header"):
            message.header.stamp = self._node.get_clock().now().to_msg()
        self.publishers[name].publish(message)
        self.sent[name] += 1

    def send_all(self) -> None:
        for topic in TOPICS:
            if topic.name != "episode/state":
                self.send(topic.name)

    def state(self, phase: Phase, episode_id: str, outcome: Outcome | None = None) -> None:
        state = EpisodeState(
            phase=phase,
            episode_id=episode_id,
            task="lift",
            instruction="lift the red cube",
            seed=7,
            outcome=outcome,
        )
        self._messages["episode/state"] = encode_episode(state, time.time_ns())
        self.send("episode/state")

    def is_matched(self) -> bool:
        return all(p.get_subscription_count() > 0 for p in self.publishers.values())


def _message(type_name: str) -> object:
    message = message_type(type_name)()
    if isinstance(message, Image):
        row = bytes(range(256)) * (3 * IMAGE_PX * IMAGE_PX // 256)
        message.height = message.width = IMAGE_PX
        message.step, message.encoding = 3 * IMAGE_PX, "rgb8"
        message.data = array.array("B", row)
    elif isinstance(message, JointState):
        message.name = [f"channel_{index}" for index in range(7)]
        message.position = message.velocity = message.effort = [0.1] * 7
    elif isinstance(message, DiagnosticArray):
        pairs = [KeyValue(key=f"key_{index}", value=str(index)) for index in range(10)]
        message.status = [DiagnosticStatus(name="node", values=pairs)]
    return message


def play(traffic: Traffic, episode_id: str, duration_s: float, scale: float = 1.0) -> None:
    """One episode at the nominal rates times `scale`; 4 ms resolution, no catching up."""
    traffic.state(Phase.READY, episode_id)
    start_s = time.monotonic()
    due_s = {t.name: start_s for t in TOPICS if t.rate_hz > 0 and t.name != "episode/state"}
    period_s = {t.name: 1.0 / (t.rate_hz * scale) for t in TOPICS if t.rate_hz > 0}
    state_s = start_s
    while (now_s := time.monotonic()) < start_s + duration_s:
        for name, at_s in due_s.items():
            if now_s >= at_s:
                traffic.send(name)
                due_s[name] = max(at_s + period_s[name], now_s - 0.1)
        if now_s >= state_s:
            traffic.state(Phase.RUNNING, episode_id)
            state_s += 0.2
        time.sleep(0.002)
    traffic.state(Phase.ENDED, episode_id, Outcome.SUCCESS)


def main() -> None:
    episode_id, duration_s = sys.argv[1], float(sys.argv[2])
    scale = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
    rclpy.init()
    node = Node("traffic")
    traffic = Traffic(node)
    deadline_s = time.monotonic() + 10.0
    while not traffic.is_matched() and time.monotonic() < deadline_s:
        rclpy.spin_once(node, timeout_sec=0.01)
    sys.stdout.write("matched\n")
    sys.stdout.flush()
    play(traffic, episode_id, duration_s, scale)
    sys.stdout.write(json.dumps(dict(traffic.sent)) + "\n")
    sys.stdout.flush()
    deadline_s = time.monotonic() + 1.0
    while time.monotonic() < deadline_s:
        rclpy.spin_once(node, timeout_sec=0.05)
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
