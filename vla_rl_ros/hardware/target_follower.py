# SPDX-License-Identifier: Apache-2.0
"""Decide for each target whether to follow it, and for each cycle where the reference is.

Pure and single-threaded: time and the measured pose are arguments, so that every rule is a table
test. `control_loop` brings the thread, the arm and the lock.
"""

from __future__ import annotations

import enum
import math

import numpy as np

from vla_rl_ros.core.errors import DeviceError, InvalidCommandError
from vla_rl_ros.core.geometry import angle_between_rad
from vla_rl_ros.core.impedance import ImpedanceSettings
from vla_rl_ros.core.reference import (
    ReferenceInterpolator,
    ReferenceLimits,
    clip_to_measured,
    limit_target,
)
from vla_rl_ros.core.types import ArmState, Pose
from vla_rl_ros.core.watchdog import CommandWatchdog, WatchdogState
from vla_rl_ros.hardware.control_types import (
    REJECTING,
    Command,
    ControlLoopConfig,
    ControlMode,
    LoopSnapshot,
)

# Longer than the gate's silence between two heartbeats: who homes must have silenced it.
FRESH_STREAM_S = 0.2
TARGETS_ARRIVE = "targets are arriving on arm/target_pose: silence the gate before homing"
ENGAGED = (ControlMode.RUN, ControlMode.HOLD)
BUSY = (ControlMode.HOMING, ControlMode.RECOVERING, ControlMode.ENGAGING)


class Event(enum.Enum):
    """What a call asks the caller to do, beside the return value."""

    NONE = "none"
    ENGAGE = "engage"
    """Start the spring, then call `engaged`."""
    HELD = "held"
    """The reference has just come to rest because targets stayed away."""
    STOP = "stop"
    """Bring the arm to rest."""


class TargetFollower:
    """The mode machine between targets and references."""

    def __init__(self, config: ControlLoopConfig, limits: ReferenceLimits) -> None:
        """Start in IDLE.

        Args:
            config: Ages, distances and interpolation time.
            limits: Box, step, tilt and speed limits; may be replaced at any time.
        """
        self.config = config
        self.limits = limits
        self.mode = ControlMode.IDLE
        self.limited: tuple[str, ...] = ()
        self.is_held = False
        self.fault = ""
        self._watchdog = CommandWatchdog(
            hold_after_s=config.hold_after_s, stop_after_s=config.stop_after_s
        )
        self._interpolator: ReferenceInterpolator | None = None
        self._target: Pose | None = None
        self._arrival_s = float("-inf")
        # Looking one cycle ahead makes the bounds hold although cycles are discrete.
        self._lookahead_s = 1.0 / config.rate_hz

    @property
    def goal(self) -> Pose | None:
        """Where the reference is heading, None when the spring is not engaged."""
        return self._interpolator.goal if self._interpolator is not None else None

    def target_age_s(self, now_s: float) -> float:
        """Age of the newest accepted target."""
        return self._watchdog.age_s(now_s)

    def accept(self, target: Pose, measured: Pose | None, now_s: float) -> Event:
        """Take a target or refuse it as a whole.

        Args:
            target: Wanted TCP pose, base frame.
            measured: Measured TCP pose, None when it is unknown.
            now_s: Present time.

        Returns:
            ENGAGE when the spring must be started, else NONE.

        Raises:
            InvalidCommandError: With the name of the rejecting mode, or ``held``, ``no_state``,
                ``engage_distance``, ``jump``.
        """
        self._arrival_s = now_s
        if self.mode in REJECTING:
            raise InvalidCommandError(self.mode.value, "recover or home first")
        if measured is None:
            raise InvalidCommandError("no_state", "the measured pose is unknown")
        if self.is_held:
            self._watchdog.feed(now_s)
            raise InvalidCommandError("held", "hold was asked for")
        if self._interpolator is None:
            self._begin(target, measured, now_s)
            return Event.ENGAGE
        reference, twist = self._interpolator.sample(now_s)
        self._require_near(
            target, reference, "jump", self.config.max_jump_m, self.config.max_jump_rad
        )
        is_resting = not (twist.linear_m_per_s.any() or twist.angular_rad_per_s.any())
        if not self._is_heartbeat(target, is_resting):
            self._follow(self._interpolator, target, now_s)
        self._watchdog.feed(now_s)
        return Event.NONE

    def _begin(self, target: Pose, measured: Pose, now_s: float) -> None:
        limit_m, limit_rad = self.config.engage_distance_m, self.config.engage_distance_rad
        self._require_near(target, measured, "engage_distance", limit_m, limit_rad)
        # What the arm would head for must be near as well: an arm outside the box is not engaged.
        limited, _ = limit_target(target, measured, self.limits)
        self._require_near(limited, measured, "engage_distance", limit_m, limit_rad)
        self._interpolator = ReferenceInterpolator(measured)
        self.mode = ControlMode.ENGAGING
        self._follow(self._interpolator, target, now_s)

    @staticmethod
    def _require_near(
        target: Pose, anchor: Pose, reason: str, limit_m: float, limit_rad: float
    ) -> None:
        distance_m = math.dist(target.position_m, anchor.position_m)
        angle_rad = angle_between_rad(target.quat_xyzw, anchor.quat_xyzw)
        if distance_m > limit_m or angle_rad > limit_rad:
            raise InvalidCommandError(reason, f"{distance_m:.3f} m, {angle_rad:.2f} rad away")

    def _is_heartbeat(self, target: Pose, is_resting: bool) -> bool:
        """Whether a target repeats the last one and must not restart the interpolation.

        A repeated target that was out of reach of one step goes on once the step is done.
        """
        last = self._target
        if last is None or self.mode is ControlMode.HOLD:
            return False
        is_same = np.array_equal(target.position_m, last.position_m) and np.array_equal(
            target.quat_xyzw, last.quat_xyzw
        )
        return is_same and not ("step" in self.limited and is_resting)

    def _follow(self, interpolator: ReferenceInterpolator, target: Pose, now_s: float) -> None:
        limited, self.limited = limit_target(target, interpolator.goal, self.limits)
        interpolator.set_target(limited, now_s, self.config.interpolation_s, self.limits)
        self._target = target
        self._watchdog.feed(now_s)

    def engaged(self, measured: Pose, now_s: float) -> None:
        """The spring has started: leave from the measured pose towards the newest target."""
        if self.mode is not ControlMode.ENGAGING or self._interpolator is None:
            return
        goal = self._interpolator.goal
        self._interpolator.reset(measured)
        self._interpolator.set_target(goal, now_s, self.config.interpolation_s, self.limits)
        self._watchdog.feed(now_s)
        self.mode = ControlMode.RUN

    def step(
        self, measured: Pose, settings: ImpedanceSettings, now_s: float
    ) -> tuple[Command | None, Event]:
        """One cycle.

        Args:
            measured: Measured TCP pose.
            settings: Clips of the spring.
            now_s: Present time.

        Returns:
            The command for the arm, None when the spring is not engaged, and what happened.
        """
        interpolator = self._interpolator
        if interpolator is None or self.mode not in ENGAGED:
            return None, Event.NONE
        event = Event.NONE
        watchdog = self._watchdog.state(now_s + self._lookahead_s)
        if watchdog is WatchdogState.STOP:
            self.leave(ControlMode.STOPPED)
            return None, Event.STOP
        if self.is_held or watchdog is WatchdogState.HOLD:
            if self.mode is ControlMode.RUN:
                interpolator.freeze(now_s)
                self.mode, event = ControlMode.HOLD, Event.HELD
        else:
            self.mode = ControlMode.RUN
        reference, twist = interpolator.sample(now_s)
        pose, twist, saturated = clip_to_measured(reference, twist, measured, settings)
        return Command(reference=reference, pose=pose, twist=twist, is_saturated=saturated), event

    def snapshot(
        self, cycle: int, state: ArmState | None, command: Command | None, now_s: float
    ) -> LoopSnapshot:
        """What others may know of a cycle."""
        return LoopSnapshot(
            cycle=cycle,
            mode=self.mode,
            state=state,
            command=command,
            goal=self.goal,
            target_age_s=self.target_age_s(now_s),
            limited=self.limited,
            is_held=self.is_held,
            fault=self.fault,
        )

    def hold(self) -> str:
        """Rest, and refuse targets and `home`, in whatever mode, until `begin_recovery`.

        Returns:
            What happens, as a sentence.
        """
        self.is_held = True
        if self._interpolator is not None:
            return "the reference is frozen"
        return f"the arm is {self.mode.value}; nothing moves it until recover"

    def begin_homing(self, now_s: float) -> None:
        """Enter HOMING.

        Raises:
            DeviceError: A fault or a hold is latched, the arm is busy, or targets are arriving.
        """
        self._require_unlatched()
        self._require_free()
        if now_s - self._arrival_s < FRESH_STREAM_S:
            raise DeviceError(TARGETS_ARRIVE)
        self.leave(ControlMode.HOMING)

    def begin_rearming(self) -> None:
        """Enter RECOVERING on behalf of a program: it ends no hold and clears no fault.

        Raises:
            DeviceError: A fault or a hold is latched, the arm is busy or in control.
        """
        self._require_unlatched()
        self._require_free()
        if self.mode in ENGAGED:
            raise DeviceError("the arm still follows targets: silence the gate")
        self.leave(ControlMode.RECOVERING)

    def begin_recovery(self) -> bool:
        """Enter RECOVERING, or only end a hold when the arm is in control. For people only.

        Returns:
            Whether the arm has to be recovered.

        Raises:
            DeviceError: The arm is busy.
        """
        if self.mode not in ENGAGED:
            self._require_free()
        self.is_held = False
        if self.mode in ENGAGED:
            return False
        self.leave(ControlMode.RECOVERING)
        return True

    def _require_unlatched(self) -> None:
        if self.mode is ControlMode.FAULT:
            raise DeviceError(f"a fault is latched ({self.fault}): call recover first")
        if self.is_held:
            raise DeviceError("hold was asked for: call recover first")

    def _require_free(self) -> None:
        if self.mode in BUSY:
            raise DeviceError(f"the arm is busy ({self.mode.value}): try again when it is done")

    def fail(self, reason: str) -> None:
        """Latch a fault."""
        self.leave(ControlMode.FAULT)
        self.fault = reason

    def leave(self, mode: ControlMode) -> None:
        """Leave impedance control (or what else runs) for `mode`, forgetting the reference."""
        self.mode = mode
        self.limited = ()
        self.fault = ""
        self._interpolator = self._target = None
        self._watchdog.reset()
