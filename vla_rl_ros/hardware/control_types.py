# SPDX-License-Identifier: Apache-2.0
"""Config, modes and outputs of the arm's control loop."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import ArmState, Pose, Twist


class ControlMode(enum.Enum):
    """What the control loop does with targets."""

    IDLE = "idle"
    """The arm holds itself; the first target near the measured pose engages the spring."""
    ENGAGING = "engaging"
    """The spring is being started; targets are remembered."""
    RUN = "run"
    """The reference follows the targets."""
    HOLD = "hold"
    """No fresh target: the reference rests; the next target goes on."""
    STOPPED = "stopped"
    """Silence lasted: the arm was brought to rest. Only `recover` or `home` lead out."""
    HOMING = "homing"
    """A planned motion runs."""
    RECOVERING = "recovering"
    """A fault is being cleared."""
    FAULT = "fault"
    """Reflex, lost link or refused command. Only `recover` leads out."""


REJECTING = (
    ControlMode.STOPPED,
    ControlMode.HOMING,
    ControlMode.RECOVERING,
    ControlMode.FAULT,
)


@dataclass(frozen=True, kw_only=True)
class ControlLoopConfig:
    """Timing of the reference stream and what a target must satisfy to be followed."""

    rate_hz: float = param(
        200.0, doc="Rate of the reference stream.", unit="Hz", low=100.0, high=1000.0
    )
    hold_after_s: float = param(
        0.08,  # with a cycle, a message on its way and a busy machine it is 100 ms
        doc="Target age at which the reference rests.",
        unit="s",
        low=0.02,
        high=1.0,
    )
    stop_after_s: float = param(
        0.5, doc="Target age at which the arm is stopped.", unit="s", low=0.05, high=5.0
    )
    interpolation_s: float = param(
        0.1, doc="Time one target takes; the control period.", unit="s", low=0.005, high=1.0
    )
    engage_distance_m: float = param(
        0.03, doc="Largest distance of the first target to the arm.", unit="m", low=0.0, high=0.1
    )
    engage_distance_rad: float = param(
        0.3, doc="Largest angle of the first target to the arm.", unit="rad", low=0.0, high=1.0
    )
    max_jump_m: float = param(
        0.2, doc="A target farther from the reference is dropped.", unit="m", low=0.0, high=1.0
    )
    max_jump_rad: float = param(
        0.8, doc="A target turned farther is dropped.", unit="rad", low=0.0, high=3.2
    )

    def __post_init__(self) -> None:
        """Check bounds and the order of the two ages."""
        check_bounds(self)
        if self.hold_after_s >= self.stop_after_s:
            raise ConfigError(
                f"hold_after_s={self.hold_after_s} must be less than "
                f"stop_after_s={self.stop_after_s}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Command:
    """What one cycle sends to the arm.

    Attributes:
        reference: Where the reference is, base frame.
        pose: Set point of the spring: the reference, clipped against the measured pose.
        twist: Velocity feed-forward.
        is_saturated: For x y z rx ry rz whether the error clip acts.
    """

    reference: Pose
    pose: Pose
    twist: Twist
    is_saturated: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoopSnapshot:
    """The control loop at the end of one cycle.

    Attributes:
        cycle: Counts cycles since the loop started.
        mode: Present mode.
        state: Newest measured state, None before the first.
        command: What was sent in this cycle, None when the spring is not engaged.
        goal: Where the reference is heading, None when the spring is not engaged.
        target_age_s: Age of the newest accepted target, infinite before the first.
        limited: Limits that acted on the newest accepted target.
        is_held: Whether `hold` was asked for.
        fault: Reason of FAULT, empty otherwise.
    """

    cycle: int
    mode: ControlMode
    state: ArmState | None
    command: Command | None
    goal: Pose | None
    target_age_s: float
    limited: tuple[str, ...]
    is_held: bool
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeRequest:
    """Where home is and how fast to go there.

    Attributes:
        q_rad: Joint configuration, shape (7,).
        offset_m: Straight motion of the TCP afterwards, base axes, shape (3,).
        clearance_m: Height of the TCP above the base from which the joints may move; an arm
            below it rises straight up first.
        joint_speed: Fraction of the arm's dynamics for the joint motion.
        tcp_speed: Fraction of the arm's dynamics for the straight motions.
        gripper_width_m: Width of the gripper at home; 0 closes it with force.
    """

    q_rad: tuple[float, ...]
    offset_m: tuple[float, ...]
    clearance_m: float
    joint_speed: float
    tcp_speed: float
    gripper_width_m: float
