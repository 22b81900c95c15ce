# SPDX-License-Identifier: Apache-2.0
"""Notes what gate and arm do about an operator's hand, by the stamps of the middleware itself.

Its own callbacks may lag: the times are those at which the middleware sent. Used by `vla-rl-ros
bench takeover`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from vla_rl_ros.core.intervention import ExecutedAction
from vla_rl_ros.core.types import Pose
from vla_rl_ros.ros.action_codecs import decode_executed
from vla_rl_ros.ros.channels import decode_channels
from vla_rl_ros.ros.codecs import decode_pose
from vla_rl_ros.ros.observer import GraphObserver

MessageInfo = Mapping[str, int]


class TakeoverProbe:
    """Listens through an observer; filled while it spins.

    Attributes:
        targets: Time of sending and target of the arm.
        references: Time of sending and reference of the arm.
        rows: Time of sending and executed tick.
        widths_m: Time of sending and width told to the gripper.
    """

    def __init__(self, observer: GraphObserver) -> None:
        """Join the topics."""
        self.targets: list[tuple[int, Pose]] = []
        self.references: list[tuple[int, Pose]] = []
        self.rows: list[tuple[int, ExecutedAction]] = []
        self.widths_m: list[tuple[int, float]] = []
        self._observer = observer
        self._listen(PoseStamped, "arm/target_pose", self.targets, decode_pose)
        self._listen(PoseStamped, "arm/reference_pose", self.references, decode_pose)
        self._listen(JointState, "action/executed", self.rows, decode_executed)
        self._listen(JointState, "gripper/target", self.widths_m, _width_m)

    def _listen(
        self, kind: type, topic: str, into: list[tuple[int, Any]], decode: Callable[[Any], Any]
    ) -> None:
        def note(message: Any, info: MessageInfo) -> None:  # noqa: ANN401 - generated message
            into.append((info["source_timestamp"], decode(message)))

        # Reliable and deep: every message counts, whenever this process gets to it.
        callback: Callable[..., None] = note
        self._observer.node.create_subscription(kind, topic, callback, QoSProfile(depth=500))


def _width_m(message: JointState) -> float:
    return decode_channels(message, ["gripper.width_m"])["gripper.width_m"]
