# SPDX-License-Identifier: Apache-2.0
"""Observations are of one time: that of the oldest image, less what each device takes to tell."""

from __future__ import annotations

import numpy as np
import pytest
from node.cell_stub import CellStub
from node.policy_stub import PolicyStub
from rclpy.node import Node

from vla_rl_ros.core.types import ArmState, GripperState, Pose, Twist, Wrench
from vla_rl_ros.ros import codecs
from vla_rl_ros.ros.observation_reader import ObservationLimits, ObservationReader, Seen
from vla_rl_ros.ros.sampler import Sampler
from vla_rl_ros.ros.state_reader import StaleInputError, StateLimits

pytestmark = pytest.mark.ros

MS = 1_000_000
DOWN = np.array([1.0, 0.0, 0.0, 0.0])
TOPICS = (
    "arm/tcp_pose",
    "arm/tcp_twist",
    "arm/tcp_wrench",
    "arm/joint_state",
    "gripper/state",
    "arm/target_pose",
    "camera/wrist/image",
    "camera/front/image",
)


class Scene:
    """An arm that moves 1 mm per millisecond, its joint 1 by 1 rad per second, and two cameras."""

    def __init__(self, executor) -> None:
        self.cell = CellStub(executor, ())
        self.cell.is_sensing = False
        self.node = Node("reader")
        executor.add_node(self.node)
        self.start_ns = self.cell.now_ns()

    def reader(self, cameras=("wrist", "front"), **latencies: float) -> ObservationReader:
        camera_latency_s = latencies.pop("camera_latency_s", 0.0)
        limits = ObservationLimits(
            state=StateLimits(max_age_s=0.1, max_gripper_age_s=0.1, depth=40, **latencies),
            max_image_age_s=0.2,
            camera_latency_s=camera_latency_s,
        )
        made = ObservationReader(Sampler(self.node), PolicyStub(8, cameras), limits)
        for topic in TOPICS:
            if cameras or not topic.startswith("camera"):
                self.cell.send(topic, self._message(topic, 0))
                assert self.cell.until(lambda topic=topic: self._is_matched(topic))
        return made

    def _is_matched(self, topic: str) -> bool:
        return self.cell._senders[topic].get_subscription_count() > 0  # noqa: SLF001

    def play(self, wrist_ms: int = 55, front_ms: int = 40) -> None:
        """Everything that is told in 100 ms."""
        self.cell.send("camera/wrist/image", self._message("camera/wrist/image", wrist_ms))
        self.cell.send("camera/front/image", self._message("camera/front/image", front_ms))
        for at_ms in range(5, 101, 5):
            for topic in TOPICS[:5]:
                self.cell.send(topic, self._message(topic, at_ms))

    def _message(self, topic: str, at_ms: int) -> object:
        stamp_ns = self.start_ns + at_ms * MS
        pose = Pose(np.array([1e-3 * at_ms, 0.0, 0.3]), DOWN)
        joints = np.array([1e-3 * at_ms, 0, 0, 0, 0, 0, 0])
        state = ArmState(
            stamp_ns=stamp_ns,
            q_rad=joints,
            dq_rad_per_s=np.zeros(7),
            tau_nm=np.zeros(7),
            pose=pose,
            twist=Twist(),
            wrench=Wrench(),
        )
        if topic.startswith("camera"):
            return codecs.encode_image(np.full((4, 4, 3), at_ms, np.uint8), stamp_ns, topic)
        return {
            "arm/tcp_pose": lambda: codecs.encode_pose(pose, stamp_ns),
            "arm/target_pose": lambda: codecs.encode_pose(pose, stamp_ns),
            "arm/tcp_twist": lambda: codecs.encode_twist(Twist(), stamp_ns),
            "arm/tcp_wrench": lambda: codecs.encode_wrench(Wrench(), stamp_ns),
            "arm/joint_state": lambda: codecs.encode_joint_state(state, ["q"] * 7),
            "gripper/state": lambda: codecs.encode_gripper(
                GripperState(stamp_ns=stamp_ns, width_m=1e-4 * at_ms)
            ),
        }[topic]()

    def read(self, reader: ObservationReader, tick_ms: int) -> Seen:
        """The observation of a tick, once everything has arrived."""
        seen: list[Seen] = []

        def is_read() -> bool:
            try:
                seen.append(
                    reader.read(
                        self.start_ns + tick_ms * MS, task="lift", instruction="", last_action=None
                    )
                )
            except StaleInputError:
                return False
            newest = seen[-1].observation.images
            return not newest or (newest["wrist"][0, 0, 0] > 0 and newest["front"][0, 0, 0] > 0)

        assert self.cell.until(is_read)
        return seen[-1]


@pytest.fixture
def scene(executor):
    return Scene(executor)


def test_proprioception_is_of_the_time_of_the_oldest_image(scene) -> None:
    reader = scene.reader()
    scene.play(wrist_ms=55, front_ms=42)
    seen = scene.read(reader, tick_ms=70)
    assert seen.stamp_ns == scene.start_ns + 42 * MS
    assert seen.observation.stamp_ns == scene.start_ns + 70 * MS
    assert seen.observation.state[0] == pytest.approx(0.042, abs=1e-6)
    assert seen.observation.joint_rad[0] == pytest.approx(0.042, abs=1e-6)


def test_latencies_of_devices_are_subtracted_from_their_stamps(scene) -> None:
    reader = scene.reader(camera_latency_s=0.02, arm_latency_s=0.01, gripper_latency_s=0.03)
    scene.play(wrist_ms=55, front_ms=50)
    seen = scene.read(reader, tick_ms=70)
    # Exposed at 30 ms; the arm told of that time at 40 ms, the hand at 60 ms.
    assert seen.stamp_ns == scene.start_ns + 30 * MS
    assert seen.observation.state[0] == pytest.approx(0.040, abs=1e-6)
    assert seen.observation.state[19] == pytest.approx(0.0060, abs=3e-4)


def test_without_cameras_it_is_of_the_tick(scene) -> None:
    reader = scene.reader(cameras=())
    scene.play()
    seen = scene.read(reader, tick_ms=70)
    assert seen.stamp_ns == seen.observation.stamp_ns
    assert seen.observation.state[0] == pytest.approx(0.070, abs=1e-6)


def test_target_is_that_from_before_the_tick(scene) -> None:
    reader = scene.reader()
    for at_ms in (60, 85):
        scene.cell.send("arm/target_pose", scene._message("arm/target_pose", at_ms))  # noqa: SLF001
    scene.play()
    assert scene.read(reader, tick_ms=70).observation.target.position_m[0] == pytest.approx(0.06)
