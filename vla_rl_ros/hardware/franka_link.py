# SPDX-License-Identifier: Apache-2.0
"""The connection to a Franka control box: connecting, reading states, thresholds, clearing errors.

Owns the only franky.Robot of the process and the thread it lives in. `franka_arm` builds motions
on it; nobody else uses it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import ArmState, FloatArray, Pose, Twist, Wrench
from vla_rl_ros.hardware.franka_config import FrankaConfig
from vla_rl_ros.hardware.franka_errors import connect_error, import_error
from vla_rl_ros.hardware.robot_thread import RobotThread, drop_realtime

if TYPE_CHECKING:
    import franky

R = TypeVar("R")

CONTROL_NICE = -10
RECOVER_LIMIT_S = 0.5
RELAX_FACTOR = 3.0
TCP_OFFSET_TOLERANCE_M = 1e-3
# Below this part of the collision force the arm does not press on anything.
PRESSING_FACTOR = 0.3

_logger = logging.getLogger(__name__)


class FrankaLink:
    """One franky.Robot in one thread.

    The wrench of `state` is libfranka's O_F_ext_hat_K: base axes, about the stiffness frame K,
    which connecting makes coincide with the TCP; positive when the robot pushes on its
    environment.
    """

    def __init__(self, config: FrankaConfig) -> None:
        """Remember the config; `connect` connects."""
        self.config = config
        self.franky: Any = None
        self.robot: Any = None
        self._thread: RobotThread | None = None
        # Keeps the connection from being dropped while a state is read.
        self._lock = threading.Lock()
        self._robot_ms, self._stamp_ns = -1, 0

    @property
    def is_open(self) -> bool:
        """Whether a robot is connected."""
        return self.robot is not None

    def connect(self) -> None:
        """Connect, after dropping what connection there was.

        Raises:
            DeviceError: With the reason and what to do about it.
        """
        try:
            import franky
        except ImportError as error:
            raise import_error(error) from error
        self.franky = franky
        try:
            if self._thread is None:
                self._thread = RobotThread("franka-robot", CONTROL_NICE)
            # The box serves one client: a dead connection must go before the new one comes.
            self._thread.call(self._drop, timeout_s=5.0)
            self._thread.call(self._connect_here, self.config.connect_timeout_s)
        except Exception as error:
            # A thread that waits for a silent box is lost; the next attempt takes a new one.
            if self._thread is not None:
                self._thread.stop(timeout_s=0.0)
            self._thread = None
            raise connect_error(error, self.config.robot_ip) from error

    def _connect_here(self) -> None:
        config, franky = self.config, self.franky
        is_realtime = config.is_realtime
        level = franky.RealtimeConfig.Enforce if is_realtime else franky.RealtimeConfig.Ignore
        try:
            robot = franky.Robot(config.robot_ip, realtime_config=level)
        finally:
            if not is_realtime:
                drop_realtime()
        # The constructor of franky.Robot sets thresholds of its own: ours come after it.
        robot.set_collision_behavior(config.collision_torque_nm, config.collision_force_n)
        self._check_frames(robot)
        self.robot = robot

    def _check_frames(self, robot: franky.Robot) -> None:
        state = robot.state
        offset_m = float(state.F_T_EE.translation[2])
        if abs(offset_m - self.config.tcp_offset_m) > TCP_OFFSET_TOLERANCE_M:
            raise ValueError(
                f"the end effector sits {offset_m:.4f} m above the flange, expected "
                f"{self.config.tcp_offset_m:.4f} m: choose the Franka Hand in Desk"
            )
        if not np.allclose(state.EE_T_K.matrix, np.eye(4), atol=1e-6):
            robot.set_k(np.eye(4).reshape(16))

    def close(self) -> None:
        """Disconnect; idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            thread.call(self._drop, timeout_s=2.0)
        finally:
            thread.stop(timeout_s=1.0)

    def _drop(self) -> None:
        with self._lock:
            self.robot = None

    def call(self, function: Callable[[], R], timeout_s: float) -> R:
        """Run `function` in the robot's thread and wait for its result.

        Raises:
            DeviceError: Not connected.
            NoAnswerError: No result in time.
        """
        if self._thread is None:
            raise DeviceError("the arm is not connected")
        return self._thread.call(function, timeout_s)

    def post(self, function: Callable[[], None]) -> None:
        """Run `function` in the robot's thread when it is free; its error is logged."""

        def run() -> None:
            try:
                function()
            except Exception:
                _logger.exception("a late call to the arm failed")

        thread = self._thread
        if thread is not None:
            thread.post(run)

    def is_in_control(self) -> bool:
        """Whether a motion or the spring runs at 1 kHz."""
        robot = self.robot
        return robot is not None and bool(robot.is_in_control)

    def state(self) -> ArmState:
        """Read the newest state; whatever franky raises comes out as it is.

        Raises:
            DeviceError: Not connected.
        """
        with self._lock:
            if self.robot is None:
                raise DeviceError("the arm is not connected")
            raw = self.robot.state
            jacobian = self.robot.model.zero_jacobian(self.franky.Frame.EndEffector, raw)
            robot_ms = raw.time.to_msec()
            if robot_ms != self._robot_ms:
                # The same robot time is the same measurement: its stamp must not grow young.
                self._robot_ms, self._stamp_ns = robot_ms, time.time_ns()
            return _to_state(raw, jacobian, self._stamp_ns)

    def clear_errors(self) -> bool:
        """Run error recovery with relaxed thresholds; in the robot's thread.

        Thresholds stay relaxed, so that an arm that still presses on something can back off;
        `restore_thresholds` ends that.

        Returns:
            Whether there was anything to clear.

        Raises:
            DeviceError: The errors stay.
        """
        robot = self.robot
        if not robot.has_errors:
            return False
        self._relax_thresholds()
        robot.recover_from_errors()
        deadline_s = time.monotonic() + RECOVER_LIMIT_S
        # The call may say False although it worked (it reads an old packet): ask the state.
        while robot.has_errors:
            if time.monotonic() > deadline_s:
                errors = robot.state.current_errors
                raise DeviceError(f"the arm keeps its errors {errors}: clear them in Desk")
            time.sleep(0.001)
        self._relax_thresholds()
        return True

    def restore_thresholds(self) -> None:
        """Set the configured collision thresholds; in the robot's thread."""
        config = self.config
        self.robot.set_collision_behavior(config.collision_torque_nm, config.collision_force_n)

    def pose_off_obstacle(self) -> Pose | None:
        """One step back along the measured force, None when the arm does not press."""
        raw = self.robot.state
        force_n = np.asarray(raw.O_F_ext_hat_K[:3])
        norm_n = float(np.linalg.norm(force_n))
        if norm_n < PRESSING_FACTOR * self.config.collision_force_n:
            return None
        position = raw.O_T_EE.translation - self.config.back_off_m * force_n / norm_n
        return Pose(position, raw.O_T_EE.quaternion)

    def _relax_thresholds(self) -> None:
        config = self.config
        try:
            self.robot.set_collision_behavior(
                RELAX_FACTOR * config.collision_torque_nm, RELAX_FACTOR * config.collision_force_n
            )
        except self.franky.CommandException:
            # Some firmware refuses settings while a reflex is latched; asked again afterwards.
            return


def _to_state(raw: franky.RobotState, jacobian: FloatArray, stamp_ns: int) -> ArmState:
    # franky's own estimate O_dP_EE_est exists in control only; J dq exists always.
    speed = np.asarray(jacobian @ raw.dq)
    wrench = raw.O_F_ext_hat_K
    return ArmState(
        stamp_ns=stamp_ns,
        q_rad=raw.q,
        dq_rad_per_s=raw.dq,
        tau_nm=raw.tau_J,
        pose=Pose(raw.O_T_EE.translation, raw.O_T_EE.quaternion),
        twist=Twist(speed[:3], speed[3:]),
        wrench=Wrench(wrench[:3], wrench[3:]),
    )
