# SPDX-License-Identifier: Apache-2.0
"""What the operator's device says, and how it moves the arm: names, settings and their checks.

Owns the order of `teleop/joy` and what each button means. Read by `core.teleop`,
`core.teleop_axes`, and by everybody who publishes or reads that topic.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError

AXES = ("x", "y", "z", "rx", "ry", "rz")
"""Order of the axes of `teleop/joy`: translations and right-handed rotations."""
BUTTONS = ("gripper", "success", "failure", "stop", "mark")
"""Order of the buttons of `teleop/joy`, by what they mean."""
NUM_AXES = len(AXES)
NOT_USED = "none"
"""Instead of an axis: what is locked."""


@dataclass(frozen=True, kw_only=True)
class TeleopConfig:
    """How a hand on the device moves the arm, and when it takes the arm over."""

    mapping: tuple[str, ...] = param(
        AXES,
        doc="Axis of the operator that moves x y z rx ry rz of the base frame, each with or "
        "without a minus; none locks one. Opposite the robot: -x -y z -rx -ry rz.",
        live=True,
    )
    scale: tuple[float, ...] = param(
        (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        doc="Part of the range of an action at full deflection, for x y z rx ry rz of the base.",
        low=0.0,
        high=1.0,
        live=True,
    )
    dead_zone: float = param(
        0.05, doc="Deflection of an axis that counts as none.", low=0.0, high=0.5, live=True
    )
    buttons: tuple[str, ...] = param(
        (
            "LEFT:gripper",
            "RIGHT:success",
            "BTN_1:gripper",
            "BTN_2:success",
            "BTN_3:failure",
            "BTN_4:mark",
            "ESC:stop",
        ),
        doc="What each button of the device means, as NAME:meaning; several may mean the same. "
        f"Meanings: {', '.join(BUTTONS)}.",
        live=True,
    )
    engage_threshold: float = param(
        0.1,
        doc="Largest deflection behind the dead zone at which the operator takes over.",
        low=0.01,
        high=1.0,
        live=True,
    )
    engage_after_s: float = param(
        0.0,
        doc="How long that deflection must last before he takes over; 0 for at once.",
        unit="s",
        low=0.0,
        high=1.0,
        live=True,
    )
    release_threshold: float = param(
        0.05, doc="Deflection below which he has let go.", low=0.0, high=1.0, live=True
    )
    release_after_s: float = param(
        0.3,
        doc="How long he must have let go before the policy may go on.",
        unit="s",
        low=0.0,
        high=5.0,
        live=True,
    )

    def __post_init__(self) -> None:
        """Check bounds, that every axis is known and none drives two, and the hysteresis."""
        check_bounds(self)
        sources = [entry.removeprefix("-") for entry in self.mapping]
        unknown = [name for name in sources if name not in (*AXES, NOT_USED)]
        if unknown or len(sources) != NUM_AXES:
            raise ConfigError(
                f"mapping={self.mapping} needs {NUM_AXES} of {', '.join(AXES)} or {NOT_USED}, "
                "each with or without a minus"
            )
        used = [name for name in sources if name != NOT_USED]
        if len(set(used)) != len(used):
            raise ConfigError(f"mapping={self.mapping} uses an axis twice")
        if len(self.scale) != NUM_AXES:
            raise ConfigError(f"scale={self.scale} needs {NUM_AXES} values")
        for entry in self.buttons:
            name, _, meaning = entry.partition(":")
            if not name or meaning not in BUTTONS:
                raise ConfigError(f"buttons: '{entry}' is not NAME:{'|'.join(BUTTONS)}")
        if self.release_threshold > self.engage_threshold:
            raise ConfigError(
                f"release_threshold={self.release_threshold} must not exceed "
                f"engage_threshold={self.engage_threshold}"
            )

    def levels(self, pressed: Collection[str]) -> tuple[int, ...]:
        """Buttons that are down, by the names of the device, in the order of `BUTTONS`."""
        meant = {
            meaning
            for name, _, meaning in (entry.partition(":") for entry in self.buttons)
            if name in pressed
        }
        return tuple(int(name in meant) for name in BUTTONS)
