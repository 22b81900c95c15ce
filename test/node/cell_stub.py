# SPDX-License-Identifier: Apache-2.0
"""The rest of the cell around a node under test: sensors, supervisor, an ear on its topics."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile

from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.intervention import PolicyAction
from vla_rl_ros.core.types import ActionChunk, GripperState, Pose, Twist, Wrench
from vla_rl_ros.ros import codecs
from vla_rl_ros.ros.action_codecs import encode_policy_action
from vla_rl_ros.ros.chunk_codec import encode_chunk
from vla_rl_ros.ros.endpoints import message_type
from vla_rl_ros.ros.episode_codec import encode_episode
from vla_rl_ros.ros.graph import TOPIC_BY_NAME
from vla_rl_ros.ros.qos import PUBLISHER_QOS
from vla_rl_ros.ros.testing import spin_until

P = 100_000_000
HOME = Pose(np.array([0.5, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))


class CellStub(Node):
    """Speaks for every node but the one under test.

    Attributes:
        is_sensing: Whether arm and gripper publish.
        cameras: Cameras that publish.
        grey: What they see, in all channels.
        objects: Poses that the simulator publishes; None for no simulator.
        is_supervised: Whether the supervisor's heartbeat goes on.
        heard: Messages of the watched topics, in order.
    """

    def __init__(self, executor, watched: tuple[str, ...]) -> None:
        super().__init__("cell_stub")
        self._executor = executor
        executor.add_node(self)
        self.pose = HOME
        self.is_sensing = True
        self.cameras: set[str] = set()
        self.grey = 7
        self.objects: dict[str, Pose] | None = None
        self.is_supervised = True
        self.episode = EpisodeState(phase=Phase.IDLE, task="lift", instruction="lift the red cube")
        self.heard = defaultdict(list)
        self._senders = {}
        for name in watched:
            self.listen(name)
        self.create_timer(0.02, self._sense)
        self.create_timer(0.1, self._beat)

    def listen(self, name: str) -> None:
        """Watch a topic from now on."""
        kind = message_type(TOPIC_BY_NAME[name].type)
        self.create_subscription(kind, name, self.heard[name].append, QoSProfile(depth=500))

    def now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def send(self, name: str, message: object) -> None:
        if name not in self._senders:
            topic = TOPIC_BY_NAME[name]
            self._senders[name] = self.create_publisher(
                message_type(topic.type), name, PUBLISHER_QOS[topic.qos]
            )
        self._senders[name].publish(message)

    def move(self, pose: Pose) -> None:
        """Put the arm elsewhere and tell it at once."""
        self.is_sensing = True
        self.pose = pose
        self._sense()

    def enter(self, phase: Phase, epoch: int = 1) -> None:
        """Change the phase and tell it at once."""
        self.episode = replace(self.episode, phase=phase, epoch=epoch)
        self._beat()

    def action(self, base=(0.01, 0, 0, 0, 0, 0, 1.0)) -> PolicyAction:
        """A valid proposal for now."""
        return PolicyAction(
            stamp_ns=self.now_ns(),
            epoch=self.episode.epoch,
            chunk_id=7,
            chunk_step=1,
            delay_ticks=1,
            base=np.array(base),
            residual=np.zeros(7),
        )

    def act(self, **action: object) -> None:
        """Propose an action for now."""
        self.send("policy/action", encode_policy_action(self.action(**action)))

    def make_chunk(self, *, chunk_id: int = 1, horizon: int = 5) -> ActionChunk:
        """A chunk observed now, whose first channel numbers its elements in 0.1 mm."""
        actions = np.zeros((horizon, 7))
        actions[:, 0] = 1e-4 * np.arange(horizon)
        return ActionChunk(
            chunk_id=chunk_id,
            epoch=self.episode.epoch,
            stamp_ns=self.now_ns(),
            period_ns=P,
            delay_ticks=1,
            actions=actions,
        )

    def chunk(self, **chunk: int) -> ActionChunk:
        """Offer a chunk observed now."""
        chunk = self.make_chunk(**chunk)
        self.send("policy/chunk", encode_chunk(chunk))
        return chunk

    def spin_once(self) -> None:
        self._executor.spin_once(timeout_sec=0.002)

    def until(self, predicate, timeout_s: float = 10.0) -> bool:
        return spin_until(self._executor, predicate, timeout_s)

    def said(self, node: str, words: str) -> bool:
        """Whether the newest diagnostics of a node contain `words`; watch `/diagnostics`."""
        newest = [m.status[0] for m in self.heard["/diagnostics"] if m.status[0].name == node]
        return bool(newest) and words in newest[-1].message

    def act_until(self, predicate, **action: object) -> bool:
        """Propose an action per tick until something holds."""
        last_s = [0.0]

        def check() -> bool:
            if time.monotonic() - last_s[0] > 0.1:
                last_s[0] = time.monotonic()
                self.act(**action)
            return predicate()

        return self.until(check)

    def bring_up(self, node) -> None:
        """Activate the node under test and wait until everything is connected."""
        self._executor.add_node(node)
        node.trigger_configure()
        node.trigger_activate()
        assert node.is_running
        for name in ("arm/tcp_pose", "episode/state"):
            assert self.until(lambda name=name: self.count_subscribers(name) > 0)
        self._sense()
        self._beat()
        for name in self.heard:
            assert self.until(lambda name=name: self.count_publishers(name) > 0)
        # Discovery is mutual only when the node under test sees this one, too.
        assert self.until(lambda: node.count_publishers("episode/state") > 0)

    def _sense(self) -> None:
        stamp_ns = self.now_ns()
        if self.is_sensing:
            self.send("arm/tcp_pose", codecs.encode_pose(self.pose, stamp_ns))
            self.send("arm/tcp_twist", codecs.encode_twist(Twist(), stamp_ns))
            self.send("arm/tcp_wrench", codecs.encode_wrench(Wrench(), stamp_ns))
            gripper = GripperState(stamp_ns=stamp_ns, width_m=0.08)
            self.send("gripper/state", codecs.encode_gripper(gripper))
        for camera in self.cameras:
            rgb = np.full((8, 8, 3), self.grey, dtype=np.uint8)
            self.send(f"camera/{camera}/image", codecs.encode_image(rgb, stamp_ns, camera))

        if self.objects is not None:
            self.send("sim/objects", codecs.encode_objects(self.objects, stamp_ns))

    def _beat(self) -> None:
        if self.is_supervised:
            self.send("episode/state", encode_episode(self.episode, self.now_ns()))
