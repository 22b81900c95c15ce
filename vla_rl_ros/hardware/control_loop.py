# SPDX-License-Identifier: Apache-2.0
"""The paced thread of the arm: one `ArmController.step` per period, by absolute time.

References are functions of time, so a late cycle neither drifts nor catches up. Others wait here
for the end of a cycle and read what it measured, so that one thread alone reads the arm.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time

from vla_rl_ros.hardware.arm_controller import ArmController
from vla_rl_ros.hardware.control_types import ControlMode, LoopSnapshot
from vla_rl_ros.hardware.robot_thread import raise_priority

# An ordinary thread with a head start; SCHED_FIFO belongs to libfranka's control thread only.
LOOP_NICE = -10

_logger = logging.getLogger(__name__)


class ControlLoop:
    """Steps a controller at a fixed rate."""

    def __init__(self, controller: ArmController, rate_hz: float) -> None:
        """Take a controller; `start` starts the thread.

        Args:
            controller: Stepped by this loop only.
            rate_hz: Cycles per second.
        """
        self.controller = controller
        self._period_s = 1.0 / rate_hz
        self._is_closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._condition = threading.Condition()
        self._snapshot: LoopSnapshot | None = None
        self.error: Exception | None = None
        """What ended the thread; None while it is well."""

    def start(self) -> None:
        """Start the thread; the arm stays as it is until the first target."""
        self._is_closing.clear()
        self._thread = threading.Thread(target=self._run, name="arm-loop", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Bring the arm to rest and end the threads."""
        # The loop runs on while the arm comes to rest, so that a fault is still noticed.
        self.controller.close()
        self._is_closing.set()
        if self._thread is not None:
            self._thread.join(2.0)
            self._thread = None

    @property
    def snapshot(self) -> LoopSnapshot | None:
        """End of the newest cycle, None before the first."""
        return self._snapshot

    def wait_cycle(self, after: int, timeout_s: float) -> LoopSnapshot | None:
        """Wait for a cycle later than number `after`.

        Returns:
            Its snapshot, None when none came in time.
        """
        with self._condition:
            has_come = self._condition.wait_for(lambda: self._cycle() > after, timeout_s)
            return self._snapshot if has_come else None

    def _cycle(self) -> int:
        return self._snapshot.cycle if self._snapshot is not None else 0

    def _run(self) -> None:
        raise_priority(LOOP_NICE)
        try:
            self._step_until_closing()
        except Exception as error:
            # Without this thread the spring would keep its last reference, and no watchdog.
            _logger.exception("the arm's loop broke down")
            self._break_down(error)

    def _break_down(self, error: Exception) -> None:
        reason = f"the arm's loop broke down: {type(error).__name__}: {error}"
        self.controller.break_down(reason)
        self.error = error
        last = self._snapshot
        if last is not None:
            self._publish(
                dataclasses.replace(
                    last,
                    cycle=last.cycle + 1,
                    mode=ControlMode.FAULT,
                    command=None,
                    fault=reason,
                )
            )

    def _publish(self, snapshot: LoopSnapshot) -> None:
        with self._condition:
            self._snapshot = snapshot
            self._condition.notify_all()

    def _step_until_closing(self) -> None:
        next_s = time.monotonic()
        while not self._is_closing.is_set():
            self._publish(self.controller.step())
            next_s += self._period_s
            wait_s = next_s - time.monotonic()
            if wait_s > 0.0:
                time.sleep(wait_s)
            elif wait_s < -self._period_s:
                # Anchor anew: catching up would send references in a burst.
                next_s = time.monotonic()
