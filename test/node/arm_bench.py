# SPDX-License-Identifier: Apache-2.0
"""The two nodes of the arm process with a fake arm, and a peer that talks to them."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.types import Pose
from vla_rl_ros.hardware.arm_handle import ArmHandle
from vla_rl_ros.hardware.fakes import HOME_POSE
from vla_rl_ros.ros.codecs import encode_pose
from vla_rl_ros.ros.nodes.arm import make_arm_nodes
from vla_rl_ros.ros.qos import COMMAND, EVENT, SENSOR
from vla_rl_ros.ros.testing import spin_until

TOPICS = {
    "arm/joint_state": (JointState, SENSOR),
    "arm/tcp_pose": (PoseStamped, SENSOR),
    "arm/tcp_twist": (TwistStamped, SENSOR),
    "arm/tcp_wrench": (WrenchStamped, SENSOR),
    "gripper/state": (JointState, SENSOR),
    "arm/reference_pose": (PoseStamped, SENSOR),
    "arm/controller_state": (JointState, EVENT),
    "/diagnostics": (DiagnosticArray, EVENT),
}


def at(x_m: float = 0.0, y_m: float = 0.0, z_m: float = 0.0) -> Pose:
    """A pose near the fake arm's home."""
    return offset_pose(HOME_POSE, np.array([x_m, y_m, z_m]), np.zeros(3))


class ArmBench:
    """Nodes, a peer with publishers and clients, and everything it heard."""

    def __init__(
        self, executor: SingleThreadedExecutor, devices: dict[str, object] | None = None
    ) -> None:
        self.executor = executor
        self.proprio, self.controller = make_arm_nodes(
            {"autostart": False, **(devices or {"driver": "fake"})}, {"autostart": False}
        )
        self.peer = Node("peer")
        for node in (self.proprio, self.controller, self.peer):
            executor.add_node(node)
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self.target = self.peer.create_publisher(PoseStamped, "arm/target_pose", COMMAND)
        self.gripper = self.peer.create_publisher(JointState, "gripper/target", COMMAND)
        self.clients = {
            name: self.peer.create_client(Trigger, f"impedance_controller/{name}")
            for name in ("home", "hold", "recover", "rearm")
        }

    def listen(self, *topics: str) -> None:
        """Keep every message of these topics in `heard`."""
        for topic in topics:
            kind, qos = TOPICS[topic]
            self.peer.create_subscription(kind, topic, self.heard[topic].append, qos)

    def bring_up(self) -> None:
        """Configure and activate both nodes and wait until the peer is connected."""
        for node in (self.proprio, self.controller):
            node.trigger_configure()
        for node in (self.proprio, self.controller):
            node.trigger_activate()
        assert self.until(
            lambda: (
                self.target.get_subscription_count() > 0
                and self.gripper.get_subscription_count() > 0
                and all(client.service_is_ready() for client in self.clients.values())
            )
        )

    @property
    def arm_handle(self) -> ArmHandle:
        return self.controller.arm_handle

    @property
    def arm(self) -> Any:
        return self.arm_handle.controller.arm

    @property
    def mode(self) -> str:
        return self.arm_handle.loop.snapshot.mode.value

    def until(self, predicate: Any, timeout_s: float = 10.0) -> bool:
        return spin_until(self.executor, predicate, timeout_s)

    def now_ns(self) -> int:
        return int(self.peer.get_clock().now().nanoseconds)

    def send(self, pose: Pose, **changes: Any) -> None:
        self.target.publish(encode_pose(pose, self.now_ns(), **changes))

    def drive(self, pose: Pose, predicate: Any, timeout_s: float = 10.0) -> bool:
        """Repeat a target at the heartbeat until something holds."""
        with self.heartbeat(lambda: pose):
            return self.until(predicate, timeout_s)

    @contextlib.contextmanager
    def heartbeat(self, pose: Callable[[], Pose]) -> Iterator[None]:
        """Repeat a target at the gate's rate; a stall of the test machine is recovered from."""

        def beat() -> None:
            if self.mode == "stopped":
                self.clients["recover"].call_async(Trigger.Request())
            self.send(pose())

        timer = self.peer.create_timer(0.02, beat)
        try:
            yield
        finally:
            self.peer.destroy_timer(timer)

    def call(self, name: str, timeout_s: float = 10.0) -> Trigger.Response:
        future = self.clients[name].call_async(Trigger.Request())
        assert self.until(future.done, timeout_s)
        return future.result()

    def counted(self, key: str) -> int:
        return self.controller.diag.counted(key)

    def close(self) -> None:
        """Shut the nodes down as `run` does."""
        if rclpy.ok():
            self.controller.trigger_shutdown()
            self.proprio.trigger_shutdown()
