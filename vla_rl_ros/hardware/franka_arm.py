# SPDX-License-Identifier: Apache-2.0
"""A Franka arm through franky: real robot and simulator alike.

The 1 kHz law runs in franky's C++ thread; this handle starts it, moves its set point, notices
when it ends and clears faults. Nobody announces a fault: `mode` or `state` must be read now and
then. `state`, `mode`, `fault`, `set_reference` and `set_settings` may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vla_rl_ros.core.errors import ArmFaultError, DeviceError
from vla_rl_ros.core.impedance import ImpedanceSettings
from vla_rl_ros.core.types import ArmState, FloatArray, Pose, Twist
from vla_rl_ros.hardware.franka_config import FrankaConfig
from vla_rl_ros.hardware.franka_errors import LINK_LOST, REFLEX, REFUSED, fault_of
from vla_rl_ros.hardware.franka_link import FrankaLink
from vla_rl_ros.hardware.protocols import ArmFault, ArmMode
from vla_rl_ros.hardware.robot_thread import NoAnswerError

if TYPE_CHECKING:
    import franky

R = TypeVar("R")

STOP_RAMP_S = 0.1
STOP_LIMIT_S = 0.4
MOTION_LIMIT_S = 60.0
JOIN_PERIOD_S = 0.02


class FrankaArm:
    """Implements `protocols.Arm`."""

    def __init__(self, config: FrankaConfig) -> None:
        """Remember the config; `open` connects."""
        self._link = FrankaLink(config)
        self._tracker: Any = None
        self._reference: Any = None
        # Guards mode, fault, tracker and reference; held for microseconds only.
        self._lock = threading.Lock()
        self._mode = ArmMode.DISCONNECTED
        self._fault: ArmFault | None = None
        self._abort = threading.Event()

    def open(self) -> None:
        """Connect and set the collision thresholds."""
        if self._mode is not ArmMode.DISCONNECTED:
            return
        self._link.connect()
        self._abort.clear()
        self._set_mode(ArmMode.IDLE)
        errors = self._link.call(lambda: str(self._link.robot.state.current_errors), 2.0)
        if self._link.robot.has_errors:
            self._latch(ArmFault(kind=REFLEX, detail=f"found on connecting: {errors}"))

    def close(self) -> None:
        """Stop whatever runs and disconnect."""
        try:
            self.stop()
        finally:
            with self._lock:
                self._mode, self._fault = ArmMode.DISCONNECTED, None
                self._tracker = self._reference = None
            self._link.close()

    def state(self) -> ArmState:
        """Newest state. A copy while in control; up to 1 ms for the next packet while idle."""
        fault = self._fault
        if fault is not None and fault.kind == LINK_LOST:
            raise DeviceError(f"the link to the arm is dead: {fault.detail}")
        try:
            return self._link.state()
        except DeviceError:
            raise
        except Exception as error:
            self._latch(fault_of(error))
            raise DeviceError(f"the arm's state cannot be read: {error}") from error

    @property
    def mode(self) -> ArmMode:
        """Present mode; looks whether the 1 kHz loop still runs."""
        with self._lock:
            if self._mode is ArmMode.IMPEDANCE and not self._link.is_in_control():
                self._mode, self._fault = ArmMode.FAULT, self._reason_of_end()
            return self._mode

    def _reason_of_end(self) -> ArmFault:
        try:
            # Does not block, and raises what ended the motion.
            self._link.robot.poll_motion()
        except Exception as error:  # noqa: BLE001 - becomes the latched fault
            return fault_of(error)
        return ArmFault(kind=REFUSED, detail="the control loop ended by itself")

    @property
    def fault(self) -> ArmFault | None:
        """The latched fault."""
        return self._fault

    def _latch(self, fault: ArmFault) -> None:
        with self._lock:
            self._mode = ArmMode.FAULT
            is_new, self._fault = self._fault is None, self._fault or fault
        if is_new and self._link.is_in_control():
            # A packet that could not be read, say: the motion goes on by itself.
            self._halt_soon()

    def _halt_soon(self) -> None:
        self._abort.set()
        self._link.post(self._halt_here)

    def _halt_here(self) -> None:
        try:
            self._stop_here()
        finally:
            self._abort.clear()

    def _set_mode(self, mode: ArmMode) -> None:
        with self._lock:
            # At rest with a latched fault is FAULT.
            is_faulted = mode is ArmMode.IDLE and self._fault is not None
            self._mode = ArmMode.FAULT if is_faulted else mode

    def start_impedance(self, settings: ImpedanceSettings) -> None:
        """Engage the spring at the measured pose; while engaged, exchange the clips seamlessly."""
        self._run(lambda: self._start_impedance_here(settings), timeout_s=2.0)

    def _start_impedance_here(self, settings: ImpedanceSettings) -> None:
        franky, robot = self._link.franky, self._link.robot
        posture = franky.PostureTask(
            robot.state.q,
            np.array(settings.nullspace_stiffness_nm_per_rad),
            np.array(settings.nullspace_damping_nms_per_rad),
        )
        tracker = franky.CartesianImpedanceTracker(
            robot,
            translational_stiffness=settings.stiffness_n_per_m,
            rotational_stiffness=settings.stiffness_nm_per_rad,
            damping=_damping(settings),
            translational_error_clip=np.array(settings.outer_clip_m),
            rotational_error_clip=np.array(settings.clip_rad),
            posture_task=posture,
        )
        with self._lock:
            if self._mode is ArmMode.IMPEDANCE and self._reference is not None:
                tracker.set_target(*self._reference)
            else:
                self._reference = None
            self._tracker = tracker
            # A call that was given up has latched a fault; the stop is on its way.
            self._mode = ArmMode.FAULT if self._fault is not None else ArmMode.IMPEDANCE

    def set_reference(self, pose: Pose, twist: Twist) -> None:
        """Move the set point; without effect unless the spring is engaged."""
        franky = self._link.franky
        with self._lock:
            if self._mode is not ArmMode.IMPEDANCE:
                return
            self._reference = (
                franky.Affine(pose.position_m, pose.quat_xyzw),
                franky.Twist(twist.linear_m_per_s, twist.angular_rad_per_s),
            )
            self._tracker.set_target(*self._reference)

    def set_settings(self, settings: ImpedanceSettings) -> None:
        """Change gains; franky smooths them with a time constant of 0.1 s."""
        with self._lock:
            if self._mode is not ArmMode.IMPEDANCE:
                return
            posture = self._tracker.motion.get_nullspace_gains()
            posture.posture_stiffness = np.array(settings.nullspace_stiffness_nm_per_rad)
            posture.posture_damping = np.array(settings.nullspace_damping_nms_per_rad)
            self._tracker.set_gains(
                translational_stiffness=settings.stiffness_n_per_m,
                rotational_stiffness=settings.stiffness_nm_per_rad,
                damping=_damping(settings),
                nullspace_gains=posture,
            )

    def stop(self) -> None:
        """Come to rest; ends a planned motion and the way back from an obstacle early."""
        is_at_rest = self._mode is ArmMode.FAULT and not self._link.is_in_control()
        if is_at_rest or self._mode is ArmMode.DISCONNECTED:
            return
        self._abort.set()
        try:
            self._call(self._stop_here, timeout_s=3.0)
        finally:
            self._abort.clear()

    def _stop_here(self) -> None:
        with self._lock:
            is_left_over = self._tracker is not None and self._link.is_in_control()
            if self._mode is not ArmMode.IMPEDANCE and not is_left_over:
                return
            if self._fault is None:
                self._mode = ArmMode.MOVING
        stop_motion = self._link.franky.TorqueStopMotion(
            ramp_duration=STOP_RAMP_S, max_duration=STOP_LIMIT_S
        )
        self._tracker.stop(stop_motion)
        with self._lock:
            self._tracker = self._reference = None
        self._set_mode(ArmMode.IDLE)

    def move_joints(self, q_rad: FloatArray, speed_fraction: float) -> None:
        """Joint motion, jerk-limited, at a fraction of the arm's dynamics."""
        self._run(lambda: self._move_joints_here(q_rad, speed_fraction), MOTION_LIMIT_S)

    def _move_joints_here(self, q_rad: FloatArray, speed_fraction: float) -> None:
        franky = self._link.franky
        target = np.array(q_rad, dtype=np.float64)
        motion = franky.JointMotion(target, relative_dynamics_factor=speed_fraction)
        self._move_here(motion, franky.JointStopMotion)

    def move_tcp(self, pose: Pose, speed_fraction: float) -> None:
        """Straight TCP motion, jerk-limited, at a fraction of the arm's dynamics."""
        self._run(lambda: self._move_tcp_here(pose, speed_fraction), MOTION_LIMIT_S)

    def _move_tcp_here(self, pose: Pose, speed_fraction: float) -> None:
        franky = self._link.franky
        target = franky.Affine(pose.position_m, pose.quat_xyzw)
        motion = franky.CartesianMotion(target, relative_dynamics_factor=speed_fraction)
        self._move_here(motion, franky.CartesianStopMotion)

    def _move_here(self, motion: franky.Motion, stop_motion: Callable[[], franky.Motion]) -> None:
        self._stop_here()
        self._set_mode(ArmMode.MOVING)
        robot = self._link.robot
        robot.move(motion, asynchronous=True)
        is_aborted = False
        while not robot.join_motion(JOIN_PERIOD_S):
            if self._abort.is_set() and not is_aborted:
                is_aborted = True
                robot.move(stop_motion(), asynchronous=True)
        self._set_mode(ArmMode.IDLE)
        if is_aborted:
            raise DeviceError("the motion was stopped before its end")

    def recover(self) -> None:
        """Clear the fault, after a lost link by connecting anew; backs off from an obstacle."""
        if self._mode in (ArmMode.IMPEDANCE, ArmMode.MOVING):
            raise DeviceError("the arm is moving: stop it first")
        if self._fault is not None and self._fault.kind == LINK_LOST:
            with self._lock:
                self._tracker = self._reference = None
            self._link.connect()
            self._abort.clear()
        self._call(self._recover_here, timeout_s=10.0)
        with self._lock:
            self._mode, self._fault = ArmMode.IDLE, None

    def _recover_here(self) -> None:
        self._stop_here()
        with self._lock:
            self._tracker = self._reference = None
        if self._link.clear_errors():
            self._back_off()
        self._link.restore_thresholds()

    def _back_off(self) -> None:
        """Move away along the measured force until the arm no longer presses."""
        for _ in range(3):
            pose = self._link.pose_off_obstacle()
            if pose is None:
                return
            # MOVING with a latched fault: `stop` acts.
            self._move_tcp_here(pose, speed_fraction=0.1)

    def _run(self, function: Callable[[], R], timeout_s: float) -> R:
        """Run a blocking robot call, unless a fault is latched."""
        if self._fault is not None:
            raise ArmFaultError(f"{self._fault.kind}: {self._fault.detail}")
        return self._call(function, timeout_s)

    def _call(self, function: Callable[[], R], timeout_s: float) -> R:
        """Run a blocking call in the robot's thread; a vendor error becomes the fault."""
        try:
            return self._link.call(function, timeout_s)
        except DeviceError as error:
            if isinstance(error, NoAnswerError):
                self._latch(ArmFault(kind=REFUSED, detail=str(error)))
                # Behind the late call, which may engage the spring yet.
                self._halt_soon()
            raise
        except Exception as error:
            self._latch(fault_of(error))
            raise ArmFaultError(f"{type(error).__name__}: {error}") from error


def _damping(settings: ImpedanceSettings) -> FloatArray:
    # Always explicit: franky's default 2 sqrt(K) is 17 Nms/rad at 75 Nm/rad, SERL uses 7.
    return np.array([settings.damping_ns_per_m] * 3 + [settings.damping_nms_per_rad] * 3)
