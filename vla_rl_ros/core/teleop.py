# SPDX-License-Identifier: Apache-2.0
"""When the operator drives and what he wants: follows the reports of one device.

Owns when a hand on the device counts as somebody who drives, and which presses nobody has taken
yet; what an axis is worth is `core.teleop_axes`. Called by the gate's node with what `teleop/joy`
carries; the caller brings the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.teleop_axes import increment_of
from vla_rl_ros.core.teleop_config import BUTTONS, NUM_AXES, TeleopConfig
from vla_rl_ros.core.types import FloatArray, finite_array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HumanCommand:
    """What the operator wants now.

    Attributes:
        increment: What one tick of this adds to the TCP, base frame, SI, shape (6,).
        is_driving: Whether he has the arm.
    """

    increment: FloatArray
    is_driving: bool


@dataclass(slots=True)
class Presses:
    """Turns levels of buttons into presses; each is counted once, whoever asks how late.

    Attributes:
        waiting: Presses that nobody has taken yet, by button.
    """

    waiting: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUTTONS, 0))
    _levels: tuple[bool, ...] | None = (False,) * len(BUTTONS)

    def update(self, levels: Sequence[int]) -> tuple[str, ...]:
        """Take the levels of one report, in the order of `BUTTONS`; missing ones are up.

        Returns:
            The buttons that went down with this report.
        """
        padded = [bool(level) for level in levels[: len(BUTTONS)]]
        padded += [False] * (len(BUTTONS) - len(padded))
        before = self._levels
        if before is None:
            # A stop too many is safer than one too few.
            before = tuple(name != "stop" for name in BUTTONS)
        pressed = tuple(
            name
            for name, is_down, was_down in zip(BUTTONS, padded, before, strict=True)
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

    def forget_levels(self) -> None:
        """What is down is not known any more: of the next report only stop counts."""
        self._levels = None

    def expect_stop(self) -> None:
        """If stop is down in the next report it counts, whether it was down before or not."""
        if self._levels is not None:
            levels = zip(BUTTONS, self._levels, strict=True)
            self._levels = tuple(is_down and name != "stop" for name, is_down in levels)

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
        """The device is gone: nobody drives from now on; buttons but stop stay down."""
        self._axes = np.zeros(NUM_AXES)
        self.presses.expect_stop()
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
