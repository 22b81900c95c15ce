# SPDX-License-Identifier: Apache-2.0
"""Parameters of the gate."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import Anchor, GateSettings
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.teleop_config import TeleopConfig


class HandDevice(enum.Enum):
    """What the operator has in his hand."""

    NONE = "none"
    SPACEMOUSE = "spacemouse"
    JOY = "joy"
    """Whatever else publishes `teleop/joy`: a joystick, the keyboard tool, a leader arm."""


class OperatorMode(enum.Enum):
    """What the operator is there for."""

    ASSIST = "assist"
    """The policy drives; he takes over and hands back as he likes."""
    DEMONSTRATE = "demonstrate"
    """He drives; what the policy proposes is ignored."""
    SHADOW = "shadow"
    """He drives; the policy proposes all the same and is compared with him."""


@dataclass(frozen=True, kw_only=True)
class InterventionConfig:
    """What the gate lets through, how long it trusts what it heard, and whose hand it feels."""

    control_period_s: float = param(
        0.1, doc="Time between two ticks.", unit="s", low=0.02, high=1.0
    )
    heartbeat_hz: float = param(
        40.0, doc="Rate at which the target is repeated.", unit="Hz", low=20.0, high=100.0
    )
    anchor: str = param(
        "measured",
        doc="What an increment is added to; must be what the policy was trained for.",
        choices=tuple(anchor.value for anchor in Anchor),
    )
    limits: ReferenceLimits = param(  # noqa: RUF009 - param() makes a field
        ReferenceLimits(), doc="Limits of targets."
    )
    max_action_age_s: float = param(
        0.0,
        doc="Largest age of a proposal; 0 for 1.5 periods, at most 0.1 s.",
        unit="s",
        low=0.0,
        high=1.0,
    )
    max_pose_age_s: float = param(
        0.1, doc="Largest age of the measured pose.", unit="s", low=0.01, high=1.0
    )
    supervisor_timeout_s: float = param(
        0.5, doc="Silence of the supervisor after which nothing is sent.", unit="s", low=0.1
    )
    gripper_open_width_m: float = param(
        0.08, doc="Width commanded for an open gripper.", unit="m", low=0.0, high=0.08
    )
    gripper_repeat_s: float = param(
        1.0, doc="Time after which the gripper's target is repeated.", unit="s", low=0.1
    )
    device: str = param(
        "none",
        doc="What the operator has in his hand; joy listens to whoever publishes teleop/joy.",
        choices=tuple(device.value for device in HandDevice),
    )
    mode: str = param(
        "assist",
        doc="assist: the policy drives and the operator may take over. demonstrate: he drives. "
        "shadow: he drives and the policy is compared with him.",
        choices=tuple(mode.value for mode in OperatorMode),
    )
    teleop: TeleopConfig = param(  # noqa: RUF009 - param() makes a field
        TeleopConfig(), doc="How his hand moves the arm."
    )
    joy_timeout_s: float = param(
        0.25,
        doc="Silence of a foreign publisher of teleop/joy after which nobody drives, and largest "
        "age of what it says. Who pushed is let go after 0.3 s of silence in any case.",
        unit="s",
        low=0.05,
        high=2.0,
    )
    disagreement: float = param(
        0.5,
        doc="In shadow mode, distance of a channel from the policy's, in ranges of an action, "
        "from which a tick is marked.",
        low=0.0,
        high=2.0,
        live=True,
    )

    def __post_init__(self) -> None:
        """Check bounds, and that no proposal outlives its tick."""
        check_bounds(self)
        if self.max_action_age_s > 1.5 * self.control_period_s:
            raise ConfigError(
                f"max_action_age_s={self.max_action_age_s} must not exceed 1.5 periods of "
                f"control_period_s={self.control_period_s}"
            )
        if self.device == HandDevice.NONE.value and self.mode != OperatorMode.ASSIST.value:
            raise ConfigError(f"mode={self.mode} needs an operator: set device")

    @property
    def action_age_s(self) -> float:
        """Largest age of a proposal."""
        return self.max_action_age_s or min(0.1, 1.5 * self.control_period_s)

    @property
    def spec(self) -> ActionSpec:
        """Range of actions."""
        return ActionSpec(control_period_s=self.control_period_s)

    def gate_settings(self) -> GateSettings:
        """What the gate needs of it."""
        return GateSettings(anchor=Anchor(self.anchor), limits=self.limits, spec=self.spec)
