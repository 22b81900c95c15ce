# SPDX-License-Identifier: Apache-2.0
"""One arm and the rules of who may move it: targets, hold, home, recovery, faults. No ROS.

`control_loop` calls `step` at a fixed rate from its thread; everything else may be called from
any thread and does not block. Arm calls that block run one after the other in a worker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future

from vla_rl_ros.core.errors import DeviceError, InvalidCommandError
from vla_rl_ros.core.impedance import ImpedanceSettings
from vla_rl_ros.core.reference import ReferenceLimits
from vla_rl_ros.core.types import ArmState, Pose
from vla_rl_ros.hardware.arm_worker import MOVING, ArmWorker, BrokenJobError, run_job
from vla_rl_ros.hardware.control_types import (
    Command,
    ControlLoopConfig,
    ControlMode,
    HomeRequest,
    LoopSnapshot,
)
from vla_rl_ros.hardware.gripper_worker import GripperWorker
from vla_rl_ros.hardware.home_motion import go_home
from vla_rl_ros.hardware.loop_stats import LoopStatistics
from vla_rl_ros.hardware.protocols import Arm, ArmMode
from vla_rl_ros.hardware.target_follower import BUSY, ENGAGED, Event, TargetFollower

GRIPPER_RECOVERY_S = 3.0

_logger = logging.getLogger(__name__)


class ArmController:
    """Follows targets on one arm, cycle by cycle."""

    def __init__(
        self,
        arm: Arm,
        gripper: GripperWorker | None,
        config: ControlLoopConfig,
        limits: ReferenceLimits,
        settings: ImpedanceSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        worker: Executor | None = None,
    ) -> None:
        """Start in IDLE, refusing targets until `enable`.

        Args:
            arm: Used by this controller only; opened by the caller.
            gripper: Moved to its home width with the arm, recovered with it; started by the
                caller. None for an arm without gripper.
            config: Rate, ages, distances.
            limits: Workspace, step and speed limits.
            settings: Spring to engage with.
            clock: Monotonic seconds, for ages.
            wall_ns: ROS time, compared with stamps of targets.
            worker: Runs blocking arm calls one after the other; a thread of its own when None.
        """
        self.arm, self.gripper = arm, gripper
        self.stats = LoopStatistics(1.0 / config.rate_hz)
        self._settings = settings
        self._clock, self._wall_ns = clock, wall_ns
        self._worker = ArmWorker(arm, worker)
        self._follower = TargetFollower(config, limits)
        self._lock = threading.Lock()
        self._is_enabled = False
        self._state: ArmState | None = None
        self._unsent_stamp_ns: int | None = None
        self._last_target_s = float("-inf")
        self._cycle = 0

    def enable(self) -> None:
        """Accept targets."""
        with self._lock:
            self._is_enabled = True

    def disable(self) -> None:
        """Refuse targets from now on and bring the arm to rest; blocks until it is."""
        with self._lock:
            self._is_enabled = False
            if self._follower.mode in (*ENGAGED, ControlMode.ENGAGING):
                self._follower.leave(ControlMode.IDLE)
        self._worker.end_jobs()

    def close(self) -> None:
        """Bring the arm to rest and end the worker."""
        self.disable()
        self._worker.close()

    def break_down(self, reason: str) -> None:
        """Nobody steps any more: latch a fault, accept nothing, bring the arm to rest."""
        with self._lock:
            self._is_enabled = False
            self._fail(reason)
        self._worker.halt()

    def submit_target(self, target: Pose, stamp_ns: int) -> tuple[str, ...]:
        """Follow a target or refuse it as a whole.

        Args:
            target: TCP pose, base frame.
            stamp_ns: Header stamp of the message, ROS time.

        Returns:
            Names of the limits that changed it.

        Raises:
            InvalidCommandError: With the reason as a counter token.
        """
        now_s = self._clock()
        with self._lock:
            if not self._is_enabled:
                raise InvalidCommandError("inactive", "the controller is not active")
            measured = self._state.pose if self._state is not None else None
            event = self._follower.accept(target, measured, now_s)
            self._last_target_s, self._unsent_stamp_ns = now_s, stamp_ns
            limited = self._follower.limited
        if event is Event.ENGAGE:
            self._submit(self._engage, ControlMode.FAULT)
        return limited

    def set_limits(self, limits: ReferenceLimits) -> None:
        """Replace the limits; they hold from the next target on."""
        self._follower.limits = limits

    def set_settings(self, settings: ImpedanceSettings) -> None:
        """Replace gains and clips; asymmetric clips act from the next cycle on."""
        with self._lock:
            old, self._settings = self._settings, settings
            is_engaged = self._follower.mode in ENGAGED
        clips = [(each.outer_clip_m, each.clip_rad) for each in (old, settings)]
        if is_engaged and clips[0] == clips[1]:
            self.arm.set_settings(settings)
        elif is_engaged:
            self._submit(self._exchange_settings, ControlMode.FAULT)

    def hold(self) -> str:
        """Rest, ending a planned motion; refuse to move until `recover`. Says what happens."""
        with self._lock:
            sentence, mode = self._follower.hold(), self._follower.mode
        if mode in (ControlMode.HOMING, ControlMode.RECOVERING):
            self._worker.end_jobs_soon()
        return sentence

    def recover(self) -> Future[str]:
        """Clear a fault (the gripper's as well), a stop or a hold; the arm may back off.

        Returns:
            Future of a sentence; its exception is a DeviceError.

        Raises:
            DeviceError: The arm is busy.
        """
        with self._lock:
            has_left_control = self._follower.begin_recovery()
        return self._submit(lambda: self._recover(has_left_control), ControlMode.FAULT)

    def rearm(self) -> Future[str]:
        """Accept targets again after a stop; moves nothing, ends no hold and clears no arm fault.

        Returns:
            Future of a sentence; its exception is a DeviceError.

        Raises:
            DeviceError: A fault or a hold is latched, or the arm is busy or follows targets.
        """
        with self._lock:
            self._follower.begin_rearming()
        return self._submit(self._rearm, ControlMode.FAULT)

    def home(self, request: HomeRequest) -> Future[str]:
        """Move to a joint configuration, then straight by an offset of the TCP.

        Returns:
            Future of a sentence; its exception is a DeviceError.

        Raises:
            DeviceError: Targets are arriving, a fault or a hold is latched, or the arm is busy.
        """
        with self._lock:
            if not self._is_enabled:
                raise DeviceError("the controller is not active: activate it first")
            was_stopped = self._follower.mode is ControlMode.STOPPED
            self._follower.begin_homing(self._clock())
            limits = self._follower.limits
        on_error = ControlMode.STOPPED if was_stopped else ControlMode.IDLE
        return self._submit(lambda: self._home(request, limits), on_error)

    def step(self) -> LoopSnapshot:
        """One cycle: state, fault, watchdog, reference."""
        started_s = self._clock()
        try:
            self._state = self.arm.state()
        except DeviceError as error:
            # A dead link becomes a fault below; the last state grows stale by its stamp.
            _logger.debug("no state: %s", error)
        with self._lock:
            self._check_fault()
            command, event = None, Event.NONE
            if self._state is not None:
                command, event = self._follower.step(
                    self._state.pose, self._settings, self._clock()
                )
            if command is not None:
                self._send(command)
            else:
                self.stats.stream_ended()
            self._react(event)
            self._cycle += 1
            snapshot = self._follower.snapshot(self._cycle, self._state, command, self._clock())
        self.stats.cycle_s.add(self._clock() - started_s)
        return snapshot

    def _check_fault(self) -> None:
        if self._follower.mode in (ControlMode.RECOVERING, ControlMode.FAULT):
            return
        if self.arm.mode is ArmMode.FAULT:
            fault = self.arm.fault
            self._fail(f"{fault.kind}: {fault.detail}" if fault is not None else "unknown")

    def _fail(self, reason: str) -> None:
        _logger.error("arm fault: %s", reason)
        self._follower.fail(reason)

    def _send(self, command: Command) -> None:
        self.arm.set_reference(command.pose, command.twist)
        self.stats.reference_sent(self._clock())
        if self._unsent_stamp_ns is not None:
            self.stats.latency_s.add((self._wall_ns() - self._unsent_stamp_ns) * 1e-9)
            self._unsent_stamp_ns = None

    def _react(self, event: Event) -> None:
        last_target_s = self._last_target_s
        if event is Event.HELD:
            self.stats.hold_s.add(self._clock() - last_target_s)
        elif event is Event.STOP:
            _logger.warning("no target for too long: stopping the arm")
            self._submit(lambda: self._stop(last_target_s), ControlMode.FAULT)

    def _submit(self, job: Callable[[], str], mode_on_error: ControlMode) -> Future[str]:
        return self._worker.submit(lambda: self._guarded(job, mode_on_error))

    def _guarded(self, job: Callable[[], str], mode_on_error: ControlMode) -> str:
        try:
            return run_job(job)
        except DeviceError as error:
            with self._lock:
                is_unfinished = self._follower.mode in (*BUSY, ControlMode.STOPPED)
                is_fault = is_unfinished and mode_on_error is ControlMode.FAULT
                is_fault |= self.arm.fault is not None or isinstance(error, BrokenJobError)
                if is_fault:
                    self._fail(str(error))
                elif is_unfinished:
                    self._follower.leave(mode_on_error)
            if is_fault and self.arm.mode in MOVING:
                self._worker.halt()
            raise

    def _engage(self) -> str:
        with self._lock:
            if self._follower.mode is not ControlMode.ENGAGING:
                return "not wanted any more"
            settings = self._settings
        self.arm.start_impedance(settings)
        measured = self.arm.state().pose
        with self._lock:
            is_wanted = self._follower.mode is ControlMode.ENGAGING
            self._follower.engaged(measured, self._clock())
            is_outdated = self._settings != settings
        if not is_wanted:
            self.arm.stop()
        elif is_outdated:
            self._exchange_settings()
        return "engaged"

    def _exchange_settings(self) -> str:
        with self._lock:
            settings, is_engaged = self._settings, self._follower.mode in ENGAGED
        if is_engaged:
            self.arm.start_impedance(settings)
        return "settings exchanged"

    def _stop(self, last_target_s: float) -> str:
        self.arm.stop()
        self.stats.stop_s.add(self._clock() - last_target_s)
        return "stopped"

    def _recover(self, has_left_control: bool) -> str:
        if has_left_control:
            # A call that was given up may have started the spring after all.
            if self.arm.mode in MOVING:
                self.arm.stop()
            self.arm.recover()
            with self._lock:
                self._follower.leave(ControlMode.IDLE)
        self._recover_gripper()
        return "recovered: the next target near the arm is followed"

    def _rearm(self) -> str:
        # Behind a stop that was under way: had it failed, a fault would be latched by now.
        with self._lock:
            if self._follower.mode is not ControlMode.RECOVERING:
                raise DeviceError(self._follower.fault or "something else began meanwhile")
            self._follower.leave(ControlMode.IDLE)
        self._recover_gripper()
        return "ready: the next target near the arm is followed"

    def _recover_gripper(self) -> None:
        if self.gripper is not None:
            self.gripper.recover(GRIPPER_RECOVERY_S)

    def _home(self, request: HomeRequest, limits: ReferenceLimits) -> str:
        go_home(self.arm, self.gripper, request, limits)
        with self._lock:
            self._follower.leave(ControlMode.IDLE)
        return "home"
