# SPDX-License-Identifier: Apache-2.0
"""What the operator's hand means: from the axes and buttons of a device to an action.

Owns dead zone, mapping, scale, and when a hand on the device counts as somebody who drives. Called
by the gate's node with what `teleop/joy` carries; the caller brings the clock.

    device -> operator's frame (x away from him, y left, z up) -> dead zone -> `teleop/joy`
           -> mapping -> scale -> increment per tick in the base frame, SI

The operator's frame is right-handed (REP-103). Where he stands does not matter to the device, only
to `mapping`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.spec import GRIPPER_INDEX, ActionSpec
from vla_rl_ros.core.types import FloatArray, finite_array

AXES = ("x", "y", "z", "rx", "ry", "rz")
"""Order of the axes of `teleop/joy`: translations and right-handed rotations."""
BUTTONS = ("gripper", "success", "failure", "stop", "mark")
"""Order of the buttons of `teleop/joy`, by what they mean."""
NUM_AXES = len(AXES)
_NOT_USED = "none"


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
        unknown = [name for name in sources if name not in (*AXES, _NOT_USED)]
        if unknown or len(sources) != NUM_AXES:
            raise ConfigError(
                f"mapping={self.mapping} needs {NUM_AXES} of {', '.join(AXES)} or {_NOT_USED}, "
                "each with or without a minus"
            )
        used = [name for name in sources if name != _NOT_USED]
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HumanCommand:
    """What the operator wants now.

    Attributes:
        increment: What one tick of this adds to the TCP, base frame, SI, shape (6,).
        is_driving: Whether he has the arm.
    """

    increment: FloatArray
    is_driving: bool


def without_dead_zone(axes: Sequence[float] | FloatArray, dead_zone: float) -> FloatArray:
    """Cut the middle out of each axis and stretch the rest, so that nothing jumps at its edge.

    Args:
        axes: Deflections, shape (6,); beyond [-1, 1] they are clipped.
        dead_zone: Deflection that counts as none, in [0, 1).
    """
    clipped = np.clip(np.asarray(axes, dtype=np.float64), -1.0, 1.0)
    size = np.maximum(np.abs(clipped) - dead_zone, 0.0) / (1.0 - dead_zone)
    return np.asarray(np.copysign(size, clipped) + 0.0, dtype=np.float64)


def mapping_matrix(mapping: Sequence[str]) -> FloatArray:
    """Matrix M, shape (6, 6), with ``base = M @ operator``; entries are -1, 0 and 1."""
    matrix = np.zeros((NUM_AXES, NUM_AXES))
    for row, entry in enumerate(mapping):
        name = entry.removeprefix("-")
        if name != _NOT_USED:
            matrix[row, AXES.index(name)] = -1.0 if entry.startswith("-") else 1.0
    return matrix


def increment_of(axes: FloatArray, config: TeleopConfig, spec: ActionSpec) -> FloatArray:
    """Increment of one tick, base frame, SI, shape (6,), of axes behind the dead zone."""
    wanted = mapping_matrix(config.mapping) @ axes * np.asarray(config.scale)
    return spec.to_si(np.append(wanted, 0.0))[:GRIPPER_INDEX]


def axes_of(increment: FloatArray, config: TeleopConfig, spec: ActionSpec) -> FloatArray:
    """Inverse of `increment_of`, clipped to [-1, 1]: how far to push for an increment.

    An axis that is locked, or scaled to nothing, stays where it is.
    """
    wanted = spec.to_normalised(np.append(increment, 0.5))[:GRIPPER_INDEX]
    scale = np.asarray(config.scale)
    pushed = np.divide(wanted, scale, out=np.zeros(NUM_AXES), where=scale > 0.0)
    axes = np.clip(mapping_matrix(config.mapping).T @ pushed, -1.0, 1.0)
    return np.asarray(axes, dtype=np.float64)


def with_dead_zone(axes: FloatArray, dead_zone: float) -> FloatArray:
    """Inverse of `without_dead_zone` for axes in [-1, 1]; what is zero stays zero."""
    pushed = np.copysign(dead_zone, axes) + axes * (1.0 - dead_zone)
    return np.asarray(np.where(axes == 0.0, 0.0, pushed), dtype=np.float64)


@dataclass(slots=True)
class Presses:
    """Turns levels of buttons into presses; each is counted once, whoever asks how late.

    Attributes:
        waiting: Presses that nobody has taken yet, by button.
    """

    waiting: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUTTONS, 0))
    _levels: tuple[bool, ...] = (False,) * len(BUTTONS)

    def update(self, levels: Sequence[int]) -> tuple[str, ...]:
        """Take the levels of one report, in the order of `BUTTONS`; missing ones are up.

        Returns:
            The buttons that went down with this report.
        """
        padded = [bool(level) for level in levels[: len(BUTTONS)]]
        padded += [False] * (len(BUTTONS) - len(padded))
        pressed = tuple(
            name
            for name, is_down, was_down in zip(BUTTONS, padded, self._levels, strict=True)
            if is_down and not was_down
        )
        self._levels = tuple(padded)
        for name in pressed:
            self.waiting[name] += 1
        return pressed

    def take(self, name: str) -> int:
        """Presses of one button since the last call."""
        count, self.waiting[name] = self.waiting[name], 0
        return count

    def clear(self) -> None:
        """Forget presses that nobody took; buttons that are down stay down."""
        self.waiting = dict.fromkeys(BUTTONS, 0)


class Teleop:
    """Follows the reports of one device.

    Attributes:
        config: May be replaced at any time.
        presses: Of the buttons.
    """

    def __init__(self, config: TeleopConfig, spec: ActionSpec) -> None:
        """Start with nobody at the device.

        Args:
            config: Mapping and thresholds.
            spec: Range of actions.
        """
        self.config = config
        self.presses = Presses()
        self._spec = spec
        self._axes: FloatArray = np.zeros(NUM_AXES)
        self._is_driving = False
        self._touched_s = 0.0
        self._pushed_s: float | None = None

    @property
    def is_driving(self) -> bool:
        """Whether the operator has the arm, as of the last call."""
        return self._is_driving

    @property
    def is_pushed(self) -> bool:
        """Whether the newest report had a deflection at all."""
        return bool(self._axes.any())

    def update(self, axes: Sequence[float], buttons: Sequence[int], now_s: float) -> None:
        """Take one report; its buttons count whatever its axes are worth.

        Args:
            axes: Operator's frame, behind the dead zone, shape (6,).
            buttons: Levels in the order of `BUTTONS`.
            now_s: Present time.

        Raises:
            InvalidCommandError: ``wrong_length`` or ``not_finite``; then the deflection has not
                changed.
        """
        bound = self.config.release_threshold if self._is_driving else self.config.engage_threshold
        if "gripper" in self.presses.update(buttons):
            self._is_driving, self._touched_s = True, now_s
        if len(axes) < NUM_AXES:
            raise InvalidCommandError("wrong_length", f"{len(axes)} axes, not {NUM_AXES}")
        values = finite_array(axes[:NUM_AXES], (NUM_AXES,), "axes")
        self._axes = np.clip(values, -1.0, 1.0)
        deflection = float(np.abs(self._axes).max())
        if deflection < bound or deflection == 0.0:
            self._pushed_s = None
            return
        if self._pushed_s is None:
            self._pushed_s = now_s
        if self._is_driving or now_s - self._pushed_s >= self.config.engage_after_s:
            self._is_driving, self._touched_s = True, now_s

    def lost(self) -> None:
        """The device is gone: nobody drives from now on."""
        self._axes = np.zeros(NUM_AXES)
        self.presses.update(())
        self._is_driving = False
        self._pushed_s = None

    def command(self, now_s: float) -> HumanCommand:
        """What the operator wants at `now_s`; lets go of the arm when he has long enough."""
        is_touched = float(np.abs(self._axes).max()) >= max(self.config.release_threshold, 1e-9)
        if is_touched and self._is_driving:
            self._touched_s = now_s
        elif now_s - self._touched_s >= self.config.release_after_s:
            self._is_driving = False
        increment = increment_of(self._axes, self.config, self._spec)
        return HumanCommand(
            increment=increment if self._is_driving else np.zeros(NUM_AXES),
            is_driving=self._is_driving,
        )
