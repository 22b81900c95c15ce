# SPDX-License-Identifier: Apache-2.0
"""What the runtime asks of arm, gripper, camera and hand device; fakes and vendor SDKs answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from vla_rl_ros.core.impedance import ImpedanceSettings
from vla_rl_ros.core.types import ArmState, FloatArray, GripperState, Image, Pose, Twist


class ArmMode(enum.Enum):
    """What the arm's own control loop is doing."""

    DISCONNECTED = "disconnected"
    IDLE = "idle"
    """Connected, no motion; the control box holds the joints."""
    IMPEDANCE = "impedance"
    """The Cartesian spring follows `set_reference`."""
    MOVING = "moving"
    """A planned motion (`move_joints`, `move_tcp`) runs."""
    FAULT = "fault"
    """Reflex, lost link or refused command; only `recover` leaves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFault:
    """Why the arm left control.

    Attributes:
        kind: ``reflex``, ``link_lost`` or ``command_refused``.
        detail: The vendor's own words.
    """

    kind: str
    detail: str


class Arm(Protocol):
    """One arm behind its control box.

    Blocking calls may be made from one worker thread at a time. `mode`, `fault`, `set_reference`
    and `set_settings` never block and are thread-safe; `state` waits for one packet at most; and
    `stop` may come from any thread, also to end a planned motion early.
    """

    def open(self) -> None:
        """Connect. Raises DeviceError with the fix when the control box does not answer."""

    def close(self) -> None:
        """Stop whatever runs and disconnect; idempotent."""

    def state(self) -> ArmState:
        """Newest measured state. Raises DeviceError before `open` or when the link is dead."""

    @property
    def mode(self) -> ArmMode:
        """What the arm is doing now; notices faults by itself."""

    @property
    def fault(self) -> ArmFault | None:
        """The latched fault, None when there is none."""

    def start_impedance(self, settings: ImpedanceSettings) -> None:
        """Engage the spring with the reference at the measured pose. Blocks some ms."""

    def set_reference(self, pose: Pose, twist: Twist) -> None:
        """Move the spring's set point (base frame) with velocity feed-forward. Wait-free."""

    def set_settings(self, settings: ImpedanceSettings) -> None:
        """Change stiffness and damping while engaged.

        Other clips need `start_impedance`, which keeps the reference when already engaged.
        """

    def stop(self) -> None:
        """Bring the arm to rest by torque control and leave impedance. Blocks <= 0.5 s."""

    def move_joints(self, q_rad: FloatArray, speed_fraction: float) -> None:
        """Planned joint motion to q (7,), blocking until it ends."""

    def move_tcp(self, pose: Pose, speed_fraction: float) -> None:
        """Planned straight TCP motion, blocking until it ends."""

    def recover(self) -> None:
        """Clear a fault (reconnecting if the link died); the arm is IDLE afterwards."""


class Gripper(Protocol):
    """One parallel gripper, used from one thread.

    Commands return at once and are watched with `poll`, so that one thread can replace a command
    that has been overtaken: `stop` first, then the new command.
    """

    def open(self) -> None:
        """Connect without a motion. Raises DeviceError with the fix when nothing answers."""

    def close(self) -> None:
        """Disconnect; idempotent."""

    def state(self) -> GripperState:
        """Newest measured state; may wait some ms for the next packet. Raises DeviceError."""

    def needs_homing(self) -> bool:
        """Whether the fingers must be homed before other commands. Raises DeviceError."""

    def start_homing(self) -> None:
        """Begin to move the fingers over their whole range, to learn it."""

    def start_move(self, width_m: float) -> None:
        """Begin to move the fingers to a width without grasping force."""

    def start_grasp(self) -> None:
        """Begin to close on whatever is between the fingers, holding it with force."""

    def poll(self) -> bool:
        """Whether the last command has ended. Raises DeviceError when it failed."""

    def stop(self) -> None:
        """Abort the running command; no error when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraIntrinsics:
    """Pinhole intrinsics in pixels.

    Attributes:
        width: Image width.
        height: Image height.
        fx: Focal length along x.
        fy: Focal length along y.
        cx: Principal point x.
        cy: Principal point y.
        distortion: Plumb-bob coefficients k1 k2 t1 t2 k3.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0)


class Camera(Protocol):
    """One camera, read from one thread."""

    def open(self) -> None:
        """Start streaming. Raises DeviceError with the fix."""

    def close(self) -> None:
        """Stop streaming; idempotent."""

    @property
    def intrinsics(self) -> CameraIntrinsics:
        """Valid after `open`."""

    def read(self, timeout_s: float) -> Image | None:
        """Wait for the next frame; None when none came in time.

        Raises DeviceError when the device is gone for good.
        """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SixDofReport:
    """What a hand device says of itself.

    Attributes:
        axes: x y z rx ry rz in [-1, 1], shape (6,), in the operator's frame: x away from him, y
            to his left, z up, rotations right-handed (REP-103).
        pressed: Names of the buttons that are down.
    """

    axes: FloatArray
    pressed: frozenset[str] = frozenset()


class SixDofDevice(Protocol):
    """A device with six axes and buttons in an operator's hand, used from one thread."""

    def open(self) -> None:
        """Connect. Raises DeviceError with the fix when there is no device."""

    def close(self) -> None:
        """Disconnect; idempotent."""

    @property
    def name(self) -> str:
        """What it calls itself; empty before `open`."""

    def read(self, timeout_s: float) -> SixDofReport | None:
        """Wait for the next report; None when none came in time.

        Raises DeviceError when the device is gone.
        """

    def forget(self) -> None:
        """The link was lost for a while: whatever was pushed or pressed is not any more."""
