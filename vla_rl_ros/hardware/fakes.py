# SPDX-License-Identifier: Apache-2.0
"""An arm and a gripper without hardware, for tests and dry runs. Faults may be injected."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from vla_rl_ros.core.errors import ArmFaultError, DeviceError
from vla_rl_ros.core.geometry import interpolate_pose, pose_increment
from vla_rl_ros.core.impedance import ImpedanceSettings, spring_wrench
from vla_rl_ros.core.types import ArmState, FloatArray, GripperState, Pose, Twist, Wrench
from vla_rl_ros.hardware.protocols import ArmFault, ArmMode

HOME_POSE = Pose(np.array([0.45, 0.0, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
HOME_Q_RAD = (0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785)


class FakeArm:
    """Answers the `Arm` protocol. While engaged, the TCP follows the reference with a lag.

    It has no kinematics: `move_joints` changes the joints and puts the TCP at `HOME_POSE`. With
    `is_blocked` the TCP stays where it is and the wrench is what the spring pushes with.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        lag_s: float = 0.05,
    ) -> None:
        """Describe the arm.

        Args:
            clock: Monotonic seconds; the TCP moves with it.
            wall_ns: Stamps of the states.
            lag_s: Time constant of following.
        """
        self._clock, self._wall_ns, self._lag_s = clock, wall_ns, lag_s
        self._lock = threading.RLock()
        self._mode = ArmMode.DISCONNECTED
        self._fault: ArmFault | None = None
        self._pose, self._reference, self._twist = HOME_POSE, HOME_POSE, Twist()
        self._q_rad = np.array(HOME_Q_RAD)
        self._moved_s = 0.0
        self.settings = ImpedanceSettings()
        self.is_blocked = False
        self.is_silent = False
        self.calls: list[str] = []

    def fail(self, kind: str, detail: str = "injected") -> None:
        """Latch a fault, as a reflex or a lost link would."""
        with self._lock:
            self._advance()
            self._mode, self._fault = ArmMode.FAULT, ArmFault(kind=kind, detail=detail)

    @property
    def reference(self) -> tuple[Pose, Twist]:
        """What `set_reference` was last given."""
        with self._lock:
            return self._reference, self._twist

    def open(self) -> None:
        """Connect."""
        with self._lock:
            self.calls.append("open")
            if self._mode is ArmMode.DISCONNECTED:
                self._mode = ArmMode.IDLE

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self.calls.append("close")
            self._mode, self._fault = ArmMode.DISCONNECTED, None

    def state(self) -> ArmState:
        """Present state."""
        with self._lock:
            is_dead = self._fault is not None and self._fault.kind == "link_lost"
            if self._mode is ArmMode.DISCONNECTED or is_dead or self.is_silent:
                raise DeviceError("the fake arm is not connected")
            self._advance()
            return ArmState(
                stamp_ns=self._wall_ns(),
                q_rad=self._q_rad.copy(),
                dq_rad_per_s=np.zeros(7),
                tau_nm=np.zeros(7),
                pose=self._pose,
                twist=Twist(),
                wrench=self._wrench(),
            )

    def _advance(self) -> None:
        now_s = self._clock()
        elapsed_s, self._moved_s = now_s - self._moved_s, now_s
        if self._mode is ArmMode.IMPEDANCE and not self.is_blocked:
            fraction = 1.0 - float(np.exp(-max(0.0, elapsed_s) / self._lag_s))
            self._pose = interpolate_pose(self._pose, self._reference, fraction)

    def _wrench(self) -> Wrench:
        if self._mode is not ArmMode.IMPEDANCE or not self.is_blocked:
            return Wrench()
        error_m, error_rad = pose_increment(self._reference, self._pose)
        wrench = spring_wrench(error_m, error_rad, np.zeros(6), self.settings)
        return Wrench(wrench[:3], wrench[3:])

    @property
    def mode(self) -> ArmMode:
        """Present mode."""
        return self._mode

    @property
    def fault(self) -> ArmFault | None:
        """The latched fault."""
        return self._fault

    def start_impedance(self, settings: ImpedanceSettings) -> None:
        """Engage the spring at the measured pose."""
        with self._lock:
            self.calls.append("start_impedance")
            self._require_ready()
            if self._mode is not ArmMode.IMPEDANCE:
                self._reference, self._twist = self._pose, Twist()
            self._moved_s = self._clock()
            self.settings, self._mode = settings, ArmMode.IMPEDANCE

    def set_reference(self, pose: Pose, twist: Twist) -> None:
        """Move the set point."""
        with self._lock:
            if self._mode is ArmMode.IMPEDANCE:
                self._advance()
                self._reference, self._twist = pose, twist

    def set_settings(self, settings: ImpedanceSettings) -> None:
        """Change gains."""
        with self._lock:
            self.calls.append("set_settings")
            self.settings = settings

    def stop(self) -> None:
        """Come to rest at once."""
        with self._lock:
            self.calls.append("stop")
            self._advance()
            if self._mode is ArmMode.IMPEDANCE:
                self._mode = ArmMode.IDLE

    def move_joints(self, q_rad: FloatArray, speed_fraction: float) -> None:
        """Be there at once."""
        with self._lock:
            self.calls.append("move_joints")
            self._require_ready()
            self._mode = ArmMode.IDLE
            self._q_rad, self._pose = np.array(q_rad), HOME_POSE

    def move_tcp(self, pose: Pose, speed_fraction: float) -> None:
        """Be there at once."""
        with self._lock:
            self.calls.append("move_tcp")
            self._require_ready()
            self._mode, self._pose = ArmMode.IDLE, pose

    def recover(self) -> None:
        """Clear the fault."""
        with self._lock:
            self.calls.append("recover")
            if self._mode is ArmMode.IMPEDANCE:
                raise DeviceError("the arm is moving: stop it first")
            self._mode, self._fault = ArmMode.IDLE, None

    def _require_ready(self) -> None:
        if self._fault is not None:
            raise ArmFaultError(f"{self._fault.kind}: {self._fault.detail}")
        if self._mode is ArmMode.DISCONNECTED:
            raise DeviceError("the fake arm is not connected")


class FakeGripper:
    """Answers the `Gripper` protocol; a command ends with `poll` or only with `finish`."""

    def __init__(
        self, *, is_instant: bool = True, object_m: float = 0.0, is_homed: bool = True
    ) -> None:
        """Describe the gripper.

        Args:
            is_instant: Whether a command ends at the next `poll`; else only `finish` ends it.
            object_m: Width of what lies between the fingers; 0 for nothing.
            is_homed: Whether the width is known; else every command but homing is refused.
        """
        self._is_instant = is_instant
        self._object_m = object_m
        self._width_m = 0.08
        self._goal_m: float | None = None
        self._is_grasped = False
        self._is_open = False
        self._is_homed = is_homed
        self.failure: str | None = None
        self.calls: list[str] = []

    def finish(self) -> None:
        """End the running command."""
        if self._goal_m is not None:
            self._width_m = max(self._goal_m, self._object_m)
            self._is_grasped = self._width_m > self._goal_m
            self._goal_m = None

    def open(self) -> None:
        """Connect."""
        self.calls.append("open")
        self._is_open = True

    def close(self) -> None:
        """Disconnect."""
        self.calls.append("close")
        self._is_open = False

    def state(self) -> GripperState:
        """Present state."""
        self._require_open()
        return GripperState(
            stamp_ns=time.time_ns(),
            width_m=self._width_m,
            is_moving=self._goal_m is not None,
            is_grasped=self._is_grasped,
        )

    def needs_homing(self) -> bool:
        """Whether the width is unknown."""
        self._require_open()
        return not self._is_homed

    def start_homing(self) -> None:
        """Begin to learn the width."""
        self.calls.append("homing")
        self._is_homed = True
        self._begin(0.08)

    def start_move(self, width_m: float) -> None:
        """Begin a move."""
        self.calls.append(f"move {width_m:g}")
        self._begin(width_m)

    def start_grasp(self) -> None:
        """Begin to close with force."""
        self.calls.append("grasp")
        self._begin(0.0)

    def poll(self) -> bool:
        """Whether the command has ended."""
        self._require_open()
        if self._is_instant:
            self.finish()
        return self._goal_m is None

    def stop(self) -> None:
        """Abort the command."""
        self.calls.append("stop")
        self._goal_m = None

    def _begin(self, goal_m: float) -> None:
        self._require_open()
        if not self._is_homed:
            raise DeviceError("the fingers are not homed: call home")
        if self._goal_m is not None:
            raise DeviceError("a gripper command is still running: stop it first")
        self._goal_m, self._is_grasped = goal_m, False

    def _require_open(self) -> None:
        if self.failure is not None:
            raise DeviceError(self.failure)
        if not self._is_open:
            raise DeviceError("the fake gripper is not connected")
