# SPDX-License-Identifier: Apache-2.0
"""One thread that owns a gripper: newest target wins, a running command is stopped first.

A gripper command takes half a second and its link may hang, so neither a ROS callback nor the
arm's loop may wait for it. Targets go in and states come out without blocking.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.core.types import GripperState
from vla_rl_ros.hardware.protocols import Gripper

PERIOD_S = 0.02
# Below this width a target means "close on what is there", with force.
GRASP_BELOW_M = 0.005
SAME_TARGET_M = 0.002

_logger = logging.getLogger(__name__)


class GripperWorker:
    """Drives a gripper from a mailbox of size one at 50 Hz."""

    def __init__(self, gripper: Gripper) -> None:
        """Take a gripper; `start` opens it.

        Args:
            gripper: Used by this worker only.
        """
        self._gripper = gripper
        self._condition = threading.Condition()
        self._wanted_m: float | None = None
        self._active_m: float | None = None
        self._is_settled = True
        self._wants_recovery = False
        self._wants_homing = False
        self._is_homing = False
        self._after_homing_m: float | None = None
        self._num_recoveries = 0
        self._is_stopping = False
        self._state: GripperState | None = None
        self._fault: str | None = None
        self._thread: threading.Thread | None = None
        self.num_commands = 0

    def start(self) -> None:
        """Open the gripper and start the thread."""
        self._gripper.open()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._loop, name="gripper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the gripper; the fingers stay where they are."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(5.0)
            self._thread = None
        try:
            self._gripper.close()
        except DeviceError:
            _logger.warning("closing the gripper failed", exc_info=True)

    @property
    def state(self) -> GripperState | None:
        """Newest state, None before the first."""
        return self._state

    @property
    def fault(self) -> str | None:
        """Why the gripper takes no targets; None when it does."""
        return self._fault

    def submit(self, width_m: float) -> None:
        """Leave a target width; an older one that has not been started is forgotten."""
        with self._condition:
            self._wanted_m = width_m
            self._condition.notify_all()

    def move_and_wait(self, width_m: float, timeout_s: float) -> None:
        """Leave a target and wait until its command has ended; not for ROS callbacks.

        Raises:
            DeviceError: The gripper has a fault, or is not done in time.
        """
        self.submit(width_m)
        with self._condition:
            self._condition.wait_for(lambda: self._has_ended(width_m), timeout_s)
            if self._fault is not None:
                raise DeviceError(f"the gripper has a fault ({self._fault}): call recover")
            if not self._has_ended(width_m):
                raise DeviceError(f"the gripper is not done within {timeout_s:g} s")

    def _has_ended(self, width_m: float) -> bool:
        if self._fault is not None:
            return True
        return self._wanted_m is None and self._is_settled and self._is_active(width_m)

    def request_homing(self) -> None:
        """Ask for the fingers to be homed if they must be; targets wait until they are."""
        with self._condition:
            self._wants_homing = True
            self._condition.notify_all()

    def request_recovery(self) -> None:
        """Ask for the fault, if there is one, to be cleared with a new connection."""
        with self._condition:
            self._wants_recovery = True
            self._condition.notify_all()

    def recover(self, timeout_s: float) -> None:
        """Clear the fault and wait for it; not for ROS callbacks.

        Raises:
            DeviceError: The fault stays, or the gripper does not answer in time.
        """
        with self._condition:
            wanted = self._num_recoveries + 1
            self._wants_recovery = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._num_recoveries >= wanted, timeout_s)
            if self._num_recoveries < wanted:
                raise DeviceError(f"the gripper does not recover within {timeout_s:g} s")
            if self._fault is not None:
                raise DeviceError(f"the gripper's fault stays: {self._fault}")

    def step(self) -> None:
        """One pass of the thread: recovery, state, end of the command, homing, new target."""
        with self._condition:
            wants_recovery, self._wants_recovery = self._wants_recovery, False
            wants_homing, self._wants_homing = self._wants_homing, False
            wanted_m, self._wanted_m = self._wanted_m, None
            self._is_settled = self._is_settled and wanted_m is None
        try:
            if self._fault is not None:
                if not wants_recovery:
                    self._read_state()
                    return
                self._reopen()
            is_done = self._gripper.poll()
            self._state = self._gripper.state()
            if wants_homing and self._gripper.needs_homing():
                is_done = self._home(is_done)
            if self._is_homing:
                wanted_m = self._wait_for_homing(wanted_m, is_done)
            if wanted_m is not None and not self._is_active(wanted_m):
                self._command(wanted_m, is_done)
                is_done = False
        except DeviceError as error:
            self._latch(str(error))
            is_done = True
        with self._condition:
            self._is_settled = is_done
            self._num_recoveries += wants_recovery
            self._condition.notify_all()

    def _read_state(self) -> None:
        # A refused command is no reason to fall silent; a dead link is.
        with contextlib.suppress(DeviceError):
            self._state = self._gripper.state()

    def _is_active(self, width_m: float) -> bool:
        return self._active_m is not None and abs(width_m - self._active_m) < SAME_TARGET_M

    def _command(self, width_m: float, is_done: bool) -> None:
        if not is_done:
            self._gripper.stop()
        # Set after the stop and before the start: a refused start must be tried again.
        self._active_m = None
        if width_m < GRASP_BELOW_M:
            self._gripper.start_grasp()
        else:
            self._gripper.start_move(width_m)
        self._active_m = width_m
        self.num_commands += 1

    def _home(self, is_done: bool) -> bool:
        if not is_done:
            self._gripper.stop()
        self._gripper.start_homing()
        self._is_homing, self._active_m = True, None
        return False

    def _wait_for_homing(self, wanted_m: float | None, is_done: bool) -> float | None:
        if wanted_m is not None:
            self._after_homing_m = wanted_m
        if not is_done:
            return None
        self._is_homing = False
        if self._gripper.needs_homing():
            raise DeviceError("the gripper could not be homed: free the fingers")
        wanted_m, self._after_homing_m = self._after_homing_m, None
        return wanted_m

    def _reopen(self) -> None:
        try:
            self._gripper.close()
        except DeviceError:
            _logger.warning("closing the faulted gripper failed", exc_info=True)
        self._gripper.open()
        self._fault, self._active_m = None, None

    def _latch(self, reason: str) -> None:
        _logger.error("gripper fault: %s", reason)
        self._fault, self._active_m = reason, None
        self._is_homing, self._after_homing_m = False, None

    def _loop(self) -> None:
        next_s = time.monotonic()
        while True:
            self.step()
            next_s = max(next_s + PERIOD_S, time.monotonic())
            with self._condition:
                self._condition.wait_for(self._has_news, max(0.0, next_s - time.monotonic()))
                if self._is_stopping:
                    return

    def _has_news(self) -> bool:
        has_wish = self._wants_recovery or self._wants_homing
        return self._is_stopping or has_wish or self._wanted_m is not None
