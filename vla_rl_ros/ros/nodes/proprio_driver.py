# SPDX-License-Identifier: Apache-2.0
"""What the arm measures -> joint state, TCP pose, twist, wrench at the loop's rate, gripper 50 Hz.

Publishes a state once and only while states are fresh: a dead link shows as silence and in
diagnostics, never as old values.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from rclpy.timer import Timer

from vla_rl_ros.core.config import param
from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import GripperState
from vla_rl_ros.hardware.arm_handle import ArmHandle
from vla_rl_ros.hardware.control_types import LoopSnapshot
from vla_rl_ros.hardware.franka_config import FrankaConfig
from vla_rl_ros.ros.codecs import encode_gripper
from vla_rl_ros.ros.cycle_pump import CyclePump
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Endpoints, Sender
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.proprio_messages import ProprioMessages

GRIPPER_RATE_HZ = 50.0
NS_PER_S = 1e9


@dataclass(frozen=True, kw_only=True)
class ProprioDriverConfig(FrankaConfig):
    """The devices of the arm process, opened with this node or the controller."""

    driver: str = param(
        "franka", doc="Real protocol or a fake without physics.", choices=("franka", "fake")
    )
    has_gripper: bool = param(True, doc="Whether a Franka Hand hangs on the arm.")
    max_state_age_s: float = param(
        0.05, doc="Age at which a state counts as stale.", unit="s", low=0.005, high=1.0
    )


class ProprioDriverNode(ManagedNode[ProprioDriverConfig]):
    """Publishes `arm/joint_state`, `arm/tcp_*` and `gripper/state`."""

    _joints: Sender
    _pose: Sender
    _twist: Sender
    _wrench: Sender
    _gripper: Sender

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters; `attach` gives the node its devices."""
        super().__init__("proprio_driver", ProprioDriverConfig, overrides)
        self._endpoints = Endpoints(self)
        self._messages = ProprioMessages()
        self._arm_handle: ArmHandle | None = None
        self._pump: CyclePump | None = None
        self._timer: Timer | None = None
        self._is_acquired = False

    def attach(self, handle: ArmHandle) -> None:
        """Use this handle; the arm process shares it between its nodes."""
        self._arm_handle = handle

    def setup(self) -> None:
        """Open the devices and create the topics."""
        if self._arm_handle is None:
            raise DeviceError("the node was given no arm: start the arm process instead")
        self._arm_handle.acquire()
        self._is_acquired = True
        self._joints = self._endpoints.publisher("arm/joint_state")
        self._pose = self._endpoints.publisher("arm/tcp_pose")
        self._twist = self._endpoints.publisher("arm/tcp_twist")
        self._wrench = self._endpoints.publisher("arm/tcp_wrench")
        self._gripper = self._endpoints.publisher("gripper/state")

    def start(self) -> None:
        """Publish from now on."""
        assert self._arm_handle is not None
        loop = self._arm_handle.loop
        self._num_states = self._num_reported = 0
        self._stamp_ns, self._gripper_stamp_ns, self._gripper_due_s = 0, 0, 0.0
        self._pump = CyclePump(loop, self._on_cycle, "proprio")
        self._timer = self.create_timer(1.0, self._show_health)

    def stop(self, reason: str) -> None:
        """Fall silent."""
        if self._pump is not None:
            self._pump.stop()
            self._pump = None
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    def teardown(self) -> None:
        """Leave the topics; the devices close unless the controller still uses them."""
        self._endpoints.destroy()
        if self._is_acquired and self._arm_handle is not None:
            self._is_acquired = False
            self._arm_handle.release()

    def _on_cycle(self, snapshot: LoopSnapshot) -> None:
        state = snapshot.state
        if state is not None and state.stamp_ns != self._stamp_ns:
            self._stamp_ns = state.stamp_ns
            self._num_states += 1
            messages = self._messages
            messages.fill(state)
            self._joints.publish(messages.joints)
            self._pose.publish(messages.pose)
            self._twist.publish(messages.twist)
            self._wrench.publish(messages.wrench)
        gripper = self._gripper_state()
        # Not by stamps: a clock that is set back would silence the gripper.
        now_s = time.monotonic()
        if gripper is not None and now_s >= self._gripper_due_s:
            # Due times on a grid of their own keep the mean rate although cycles do not divide it.
            period_s = 1.0 / GRIPPER_RATE_HZ
            self._gripper_due_s = max(self._gripper_due_s + period_s, now_s - 0.5 * period_s)
            self._gripper_stamp_ns = gripper.stamp_ns
            self._gripper.publish(encode_gripper(gripper))

    def _gripper_state(self) -> GripperState | None:
        assert self._arm_handle is not None
        worker = self._arm_handle.controller.gripper
        state = worker.state if worker is not None else None
        is_new = state is not None and state.stamp_ns != self._gripper_stamp_ns
        return state if is_new else None

    def _show_health(self) -> None:
        assert self._arm_handle is not None
        assert self._pump is not None
        self._pump.check()
        rate_hz = float(self._num_states - self._num_reported)
        self._num_reported = self._num_states
        now_ns = self.get_clock().now().nanoseconds
        age_s = (now_ns - self._stamp_ns) / NS_PER_S if self._stamp_ns else math.inf
        worker = self._arm_handle.controller.gripper
        gripper_fault = (worker.fault or "") if worker is not None else ""
        self.diag.set("state_rate_hz", rate_hz)
        self.diag.set("state_age_ms", 1e3 * age_s)
        self.diag.set("gripper_fault", gripper_fault)
        if age_s > self.config.max_state_age_s:
            self.diag.level(Level.ERROR, f"no state from the arm for {age_s:.1f} s")
        elif gripper_fault:
            self.diag.level(Level.WARN, f"gripper: {gripper_fault}")
        else:
            self.diag.level(Level.OK, "active")
