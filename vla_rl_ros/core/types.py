# SPDX-License-Identifier: Apache-2.0
"""The values that cross folders: poses, arm and gripper state, images, action chunks.

All arrays are float64, checked once at construction and read-only afterwards. Frames are REP-105
names; unless stated otherwise everything is expressed in the arm's base frame.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_rl_ros.core.errors import InvalidCommandError

FloatArray = NDArray[np.float64]
ImageArray = NDArray[np.uint8]

BASE_FRAME = "fr3_link0"
TCP_FRAME = "fr3_hand_tcp"
QUATERNION_NORM_TOLERANCE = 1e-3


def finite_array(value: ArrayLike, shape: tuple[int, ...], name: str) -> FloatArray:
    """Copy `value` into a read-only float64 array after checking shape and finiteness.

    Raises:
        InvalidCommandError: With reason ``wrong_length`` or ``not_finite``.
    """
    array = np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise InvalidCommandError("wrong_length", f"{name} has shape {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        raise InvalidCommandError("not_finite", f"{name} = {array.tolist()}")
    array.setflags(write=False)
    return array


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Pose of a frame in another one.

    Attributes:
        position_m: Shape (3,), metres.
        quat_xyzw: Unit quaternion, shape (4,), order x, y, z, w.

    Raises:
        InvalidCommandError: Wrong shape, not finite, or quaternion norm off by more than 1e-3.
    """

    position_m: FloatArray
    quat_xyzw: FloatArray

    def __post_init__(self) -> None:
        """Validate and normalise."""
        object.__setattr__(self, "position_m", finite_array(self.position_m, (3,), "position"))
        quat = finite_array(self.quat_xyzw, (4,), "quaternion")
        # hypot does not overflow where a sum of squares does.
        norm = math.hypot(*quat.tolist())
        if abs(norm - 1.0) > QUATERNION_NORM_TOLERANCE:
            raise InvalidCommandError("not_unit_quaternion", f"norm {norm:.6g}")
        quat = quat / norm
        quat.setflags(write=False)
        object.__setattr__(self, "quat_xyzw", quat)


def _zeros3() -> FloatArray:
    return np.zeros(3)


@dataclass(frozen=True, slots=True, eq=False)
class Twist:
    """Velocity of the TCP in the base frame.

    Attributes:
        linear_m_per_s: Shape (3,).
        angular_rad_per_s: Shape (3,).
    """

    linear_m_per_s: FloatArray = field(default_factory=_zeros3)
    angular_rad_per_s: FloatArray = field(default_factory=_zeros3)

    def __post_init__(self) -> None:
        """Validate."""
        for name in ("linear_m_per_s", "angular_rad_per_s"):
            object.__setattr__(self, name, finite_array(getattr(self, name), (3,), name))


@dataclass(frozen=True, slots=True, eq=False)
class Wrench:
    """Wrench exerted by the robot on its environment, base axes, about the TCP.

    Attributes:
        force_n: Shape (3,).
        torque_nm: Shape (3,).
    """

    force_n: FloatArray = field(default_factory=_zeros3)
    torque_nm: FloatArray = field(default_factory=_zeros3)

    def __post_init__(self) -> None:
        """Validate."""
        for name in ("force_n", "torque_nm"):
            object.__setattr__(self, name, finite_array(getattr(self, name), (3,), name))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArmState:
    """One measured state of the arm.

    Attributes:
        stamp_ns: ROS time of the measurement.
        q_rad: Joint positions, shape (7,).
        dq_rad_per_s: Joint velocities, shape (7,).
        tau_nm: Measured joint torques, shape (7,).
        pose: TCP pose in the base frame.
        twist: TCP twist in the base frame.
        wrench: External wrench estimate, positive when the robot pushes on its environment.
    """

    stamp_ns: int
    q_rad: FloatArray
    dq_rad_per_s: FloatArray
    tau_nm: FloatArray
    pose: Pose
    twist: Twist
    wrench: Wrench


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperState:
    """One measured state of the gripper.

    Attributes:
        stamp_ns: ROS time of the measurement.
        width_m: Distance between the fingers.
        is_moving: Whether a command is being executed.
        is_grasped: Whether an object is held.
    """

    stamp_ns: int
    width_m: float
    is_moving: bool = False
    is_grasped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """One colour image.

    Attributes:
        stamp_ns: ROS time of the exposure.
        rgb: Shape (height, width, 3), uint8.
        depth_m: Shape (height, width), float32 metres, or None.
    """

    stamp_ns: int
    rgb: ImageArray
    depth_m: NDArray[np.float32] | None = None


class Mode(enum.Enum):
    """How chunks are executed while the next one is inferred; the rules are in `core.modes`."""

    SYNC = "sync"
    """The arm holds while the model thinks."""
    NAIVE = "naive"
    """The newest chunk is played from the element of the present tick on."""
    ENSEMBLE = "ensemble"
    """Every chunk that covers a tick has a vote (ACT, arXiv 2304.13705)."""
    WEIGHTED = "weighted"
    """The newest chunk is blended with the plan it replaces (LeRobot)."""
    RTC = "rtc"
    """The plan under way guides the inference (arXiv 2506.07339)."""
    PREFIX_LOCK = "prefix_lock"
    """What is executed while the model thinks is repeated exactly (arXiv 2512.05964)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionChunk:
    """A sequence of actions from one inference.

    Element i belongs to the control tick `stamp_ns + i * period_ns`.

    Attributes:
        chunk_id: Counts up per policy process.
        epoch: Episode epoch; bumped at resets, chunks of older epochs are dropped.
        stamp_ns: Time of step 0, which is the time of the observation tick.
        period_ns: Control period of the embodiment.
        delay_ticks: Delay the chunk was conditioned for (length of its locked prefix); 0 when it
            was asked for while the arm stood still and nothing was promised.
        actions: Shape (horizon, 7), SI units, channels of `core.spec.ACTION_CHANNELS`.
        mode: How it is to be executed.
    """

    chunk_id: int
    epoch: int
    stamp_ns: int
    period_ns: int
    delay_ticks: int
    actions: FloatArray
    mode: Mode = Mode.PREFIX_LOCK

    def __post_init__(self) -> None:
        """Validate shape and finiteness."""
        array = np.array(self.actions, dtype=np.float64)
        if array.ndim != 2 or array.shape[0] < 1:
            raise InvalidCommandError("wrong_length", f"chunk has shape {array.shape}")
        object.__setattr__(self, "actions", finite_array(array, array.shape, "chunk"))
        if self.period_ns <= 0:
            raise InvalidCommandError("bad_period", f"{self.period_ns} ns")

    @property
    def horizon(self) -> int:
        """Number of elements."""
        return int(self.actions.shape[0])
