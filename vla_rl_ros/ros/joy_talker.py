# SPDX-License-Identifier: Apache-2.0
"""Publishes `teleop/joy` for a command line that is a hand device."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Joy

from vla_rl_ros.ros.joining import joined_context
from vla_rl_ros.ros.qos import SENSOR


class JoyTalker:
    """One publisher with a ROS context of its own."""

    def __init__(self, name: str) -> None:
        """Join the graph.

        Args:
            name: Of the node and of the device.
        """
        self._context = joined_context()
        self._node = Node(name, context=self._context)
        self._publisher = self._node.create_publisher(Joy, "teleop/joy", SENSOR)

    def __enter__(self) -> JoyTalker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def say(self, axes: Sequence[float], buttons: Sequence[int]) -> None:
        """Publish what the hand does now; see `core.teleop_config` for the order."""
        message = Joy(axes=[float(value) for value in axes], buttons=list(buttons))
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = self._node.get_name()
        self._publisher.publish(message)
