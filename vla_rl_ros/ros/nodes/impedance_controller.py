# SPDX-License-Identifier: Apache-2.0
"""Targets -> the arm's Cartesian spring; home, hold, recover and rearm.

Everything that arrives is validated here and counted when it is refused; following, holding and
stopping are decided by `hardware.arm_controller` in its own thread, which needs nobody's word to
become safe. No callback waits for the arm.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future as Job
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from rclpy.timer import Timer
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from vla_rl_ros.core.errors import DeviceError, InvalidCommandError
from vla_rl_ros.core.types import BASE_FRAME
from vla_rl_ros.hardware.arm_handle import ArmHandle
from vla_rl_ros.hardware.control_types import ControlMode, LoopSnapshot
from vla_rl_ros.ros.channels import check_age, decode_channels, from_stamp, to_stamp
from vla_rl_ros.ros.codecs import decode_pose
from vla_rl_ros.ros.controller_config import ImpedanceControllerConfig
from vla_rl_ros.ros.controller_state import encode_controller_state
from vla_rl_ros.ros.cycle_pump import CyclePump
from vla_rl_ros.ros.diagnostics import Level
from vla_rl_ros.ros.endpoints import Endpoints, Sender
from vla_rl_ros.ros.managed_node import ManagedNode
from vla_rl_ros.ros.proprio_messages import fill_pose

REFERENCE_RATE_HZ = 100.0
STATE_RATE_HZ = 20.0
MAX_WIDTH_M = 0.085
WIDTH_CHANNEL = "gripper.width_m"


class ImpedanceControllerNode(ManagedNode[ImpedanceControllerConfig]):
    """Subscribes `arm/target_pose` and `gripper/target`."""

    _reference: Sender
    _state: Sender

    def __init__(self, overrides: dict[str, object] | None = None) -> None:
        """Declare parameters; `attach` gives the node its arm."""
        self._arm_handle: ArmHandle | None = None
        self._is_acquired = False
        super().__init__("impedance_controller", ImpedanceControllerConfig, overrides)
        self._endpoints = Endpoints(self)
        self._offered: list[Any] = []
        self._pump: CyclePump | None = None
        self._timer: Timer | None = None
        self._reference_message = PoseStamped()
        self._reference_message.header.frame_id = BASE_FRAME
        self._mode, self._is_held = ControlMode.IDLE, False

    def attach(self, handle: ArmHandle) -> None:
        """Use this handle; the arm process shares it between its nodes."""
        self._arm_handle = handle

    def setup(self) -> None:
        """Open the arm and create topics and services."""
        if self._arm_handle is None:
            raise DeviceError("the node was given no arm: start the arm process instead")
        self._arm_handle.acquire()
        self._is_acquired = True
        self._apply(self.config)
        self._reference = self._endpoints.publisher("arm/reference_pose")
        self._state = self._endpoints.publisher("arm/controller_state")
        self._endpoints.reader("arm/target_pose", self._on_target)
        self._endpoints.reader("gripper/target", self._on_gripper)
        # A service that awaits the arm occupies its callback group: targets are in another one.
        group = ReentrantCallbackGroup()
        answers = {
            "home": self._on_home,
            "hold": self._on_hold,
            "recover": self._on_recover,
            "rearm": self._on_rearm,
        }
        for name, answer in answers.items():
            service = self.create_service(Trigger, f"~/{name}", answer, callback_group=group)
            self._offered.append(service)

    def start(self) -> None:
        """Accept targets."""
        handle = self.arm_handle
        rate_hz = self.config.loop.rate_hz
        self._reference_every = max(1, round(rate_hz / REFERENCE_RATE_HZ))
        self._state_every = max(1, round(rate_hz / STATE_RATE_HZ))
        handle.controller.enable()
        self._pump = CyclePump(handle.loop, self._on_cycle, "reference")
        self._timer = self.create_timer(1.0, self._show_health)

    def stop(self, reason: str) -> None:
        """Refuse targets and bring the arm to rest."""
        if self._is_acquired:
            self.arm_handle.controller.disable()
        if self._pump is not None:
            self._pump.stop()
            self._pump = None
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    def teardown(self) -> None:
        """Leave topics and services; the arm closes unless the driver node still uses it."""
        self._endpoints.destroy()
        while self._offered:
            self.destroy_service(self._offered.pop())
        if self._is_acquired:
            self._is_acquired = False
            self.arm_handle.release()

    def on_config(self, config: ImpedanceControllerConfig) -> None:
        """Hand new settings and limits to the arm."""
        if self._is_acquired:
            self._apply(config)

    def _apply(self, config: ImpedanceControllerConfig) -> None:
        controller = self.arm_handle.controller
        controller.set_settings(config.settings())
        controller.set_limits(config.limits)

    @property
    def arm_handle(self) -> ArmHandle:
        """The arm, once `attach` was called."""
        assert self._arm_handle is not None
        return self._arm_handle

    def _on_target(self, message: PoseStamped) -> None:
        try:
            pose = decode_pose(message)
            stamp_ns = self._fresh_stamp(message)
            limited = self.arm_handle.controller.submit_target(pose, stamp_ns)
        except InvalidCommandError as error:
            self._reject("arm/target_pose", f"rejected.{error.reason}", error)
            return
        self.diag.count("accepted")
        for limit in limited:
            self.diag.count(f"limited.{limit}")

    def _on_gripper(self, message: JointState) -> None:
        try:
            width_m = decode_channels(message, (WIDTH_CHANNEL,))[WIDTH_CHANNEL]
            self._fresh_stamp(message)
            if not 0.0 <= width_m <= MAX_WIDTH_M:
                raise InvalidCommandError("out_of_range", f"{width_m} m")
            self._submit_width(width_m)
        except InvalidCommandError as error:
            self._reject("gripper/target", f"rejected.gripper.{error.reason}", error)
            return
        self.diag.count("accepted.gripper")

    def _submit_width(self, width_m: float) -> None:
        gripper = self.arm_handle.controller.gripper
        if not self.is_running:
            raise InvalidCommandError("inactive", "the controller is not active")
        if gripper is None:
            raise InvalidCommandError("no_gripper", "the arm has none")
        if gripper.fault is not None:
            raise InvalidCommandError("fault", gripper.fault)
        if self._mode in (ControlMode.HOMING, ControlMode.RECOVERING):
            raise InvalidCommandError(self._mode.value, "the arm is busy")
        gripper.submit(width_m)

    def _fresh_stamp(self, message: PoseStamped | JointState) -> int:
        stamp_ns = from_stamp(message.header.stamp)
        check_age(
            stamp_ns,
            self._now_ns(),
            max_age_s=self.config.max_target_age_s,
            max_ahead_s=self.config.max_target_ahead_s,
        )
        return stamp_ns

    def _reject(self, topic: str, counter: str, error: InvalidCommandError) -> None:
        self.diag.count(counter)
        self.get_logger().warning(f"{topic} dropped: {error}", throttle_duration_sec=1.0)

    async def _on_home(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        controller = self.arm_handle.controller
        self.diag.count("homings")
        return await self._answer(response, lambda: controller.home(self.config.home()))

    async def _on_recover(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        return await self._answer(response, self.arm_handle.controller.recover)

    async def _on_rearm(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._answer(response, self.arm_handle.controller.rearm)

    def _on_hold(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, self.arm_handle.controller.hold()
        return response

    async def _answer(
        self, response: Trigger.Response, begin: Callable[[], Job[str]]
    ) -> Trigger.Response:
        """Begin a job and answer when it is done, leaving the executor free meanwhile."""
        try:
            job = begin()
            await self._finished(job)
            response.success, response.message = True, job.result()
        except DeviceError as error:
            response.success, response.message = False, str(error)
        return response

    def _finished(self, job: Job[str]) -> Future[None]:
        finished: Future[None] = Future(executor=self.executor)
        # A callback, even an empty one, makes `set_result` wake the executor from its wait.
        finished.add_done_callback(_ignore)
        job.add_done_callback(lambda _: finished.set_result(None))
        return finished

    def _on_cycle(self, snapshot: LoopSnapshot) -> None:
        if (snapshot.mode, snapshot.is_held) != (self._mode, self._is_held):
            self._mode, self._is_held = snapshot.mode, snapshot.is_held
            self._show_mode(snapshot)
            self.diag.publish()
        command = snapshot.command
        if command is not None and snapshot.cycle % self._reference_every == 0:
            self._reference_message.header.stamp = to_stamp(self._now_ns())
            fill_pose(self._reference_message, command.reference)
            self._reference.publish(self._reference_message)
        if snapshot.cycle % self._state_every == 0:
            settings = self.config.settings()
            self._state.publish(encode_controller_state(snapshot, settings, self._now_ns()))

    def _show_mode(self, snapshot: LoopSnapshot) -> None:
        self.diag.set("mode", snapshot.mode.value)
        self.diag.set("fault", snapshot.fault)
        if snapshot.mode is ControlMode.FAULT:
            self.diag.level(Level.ERROR, f"fault latched, call ~/recover: {snapshot.fault}")
        elif snapshot.is_held:
            self.diag.level(Level.WARN, f"{snapshot.mode.value}, held: call ~/recover")
        elif snapshot.mode is ControlMode.STOPPED:
            self.diag.level(Level.WARN, "stopped in silence: call ~/recover or ~/home")
        else:
            self.diag.level(Level.OK, snapshot.mode.value)

    def _show_health(self) -> None:
        handle = self.arm_handle
        if self._pump is not None:
            self._pump.check()
        for key, value in handle.controller.stats.summary().items():
            self.diag.set(key, value)
        snapshot = handle.loop.snapshot
        if snapshot is not None:
            self._show_mode(snapshot)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def _ignore(_: Any) -> None:  # noqa: ANN401 - whatever future it is
    return
