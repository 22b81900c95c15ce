# SPDX-License-Identifier: Apache-2.0
"""What the gate publishes: targets of arm and gripper, the row of each tick, and counts of them.

Called by the node `intervention`.
"""

from __future__ import annotations

from rclpy.node import Node

from vla_rl_ros.core.gate import Gate
from vla_rl_ros.core.intervention import ExecutedAction
from vla_rl_ros.core.shadow import disagreement
from vla_rl_ros.ros.action_codecs import encode_executed
from vla_rl_ros.ros.channels import encode_channels
from vla_rl_ros.ros.codecs import encode_pose
from vla_rl_ros.ros.diagnostics import Diagnostics
from vla_rl_ros.ros.endpoints import Endpoints
from vla_rl_ros.ros.intervention_config import InterventionConfig, OperatorMode


class GateOutlets:
    """The gate's topics.

    Attributes:
        config: May be replaced at any time.
    """

    def __init__(
        self, node: Node, endpoints: Endpoints, diag: Diagnostics, config: InterventionConfig
    ) -> None:
        """Create the topics.

        Args:
            node: The gate.
            endpoints: Its topics.
            diag: Its diagnostics.
            config: Its parameters.
        """
        self.config = config
        self._node, self._diag = node, diag
        self._is_shadow = OperatorMode(config.mode) is OperatorMode.SHADOW
        self._target = endpoints.publisher("arm/target_pose")
        self._gripper = endpoints.publisher("gripper/target")
        self._executed = endpoints.publisher("action/executed")

    def send(self, gate: Gate, now_ns: int, now_s: float) -> None:
        """Repeat where the arm is to go, and tell the gripper what is due.

        Args:
            gate: Knows both.
            now_ns: ROS time.
            now_s: Steady time.
        """
        if gate.target is not None:
            self._target.publish(encode_pose(gate.target, now_ns))
        is_open = gate.gripper.take_due(now_s, self.config.gripper_repeat_s)
        if is_open is not None:
            width_m = self.config.gripper_open_width_m if is_open else 0.0
            self._gripper.publish(encode_channels({"gripper.width_m": width_m}, now_ns))

    def record(self, executed: ExecutedAction) -> None:
        """Publish the row of a tick; in shadow mode compare who drove with who watched."""
        self._executed.publish(encode_executed(executed))
        self._diag.count(f"source.{executed.source.value}")
        for limit in executed.limits:
            self._diag.count(f"limited.{limit}")
        if self._is_shadow:
            self._compare(executed)

    def _compare(self, executed: ExecutedAction) -> None:
        apart = disagreement(executed, self.config.spec)
        if apart is None:
            return
        self._diag.count("compared")
        self._diag.set("disagreement", apart)
        if apart >= self.config.disagreement:
            self._diag.count("disagreements")
            self._node.get_logger().info(
                f"tick {executed.stamp_ns}: the policy is {apart:.2f} away from the operator",
                throttle_duration_sec=1.0,
            )
