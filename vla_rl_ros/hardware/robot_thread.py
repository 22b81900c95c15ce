# SPDX-License-Identifier: Apache-2.0
"""The one thread that owns a franky.Robot and starts every motion.

libfranka turns the thread that connects into SCHED_FIFO 99 whenever it may, and the thread or
child that such a thread starts inherits it: one busy child at that priority freezes a machine. So
exactly one thread connects and starts motions, it starts nothing else, and where real time is not
wanted it drops the policy before the first motion.
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vla_rl_ros.core.errors import DeviceError

R = TypeVar("R")

# Field 41 of /proc/<pid>/task/<tid>/stat, counted from the field after the command name.
_POLICY_FIELD = 38


class NoAnswerError(DeviceError):
    """A call did not return in time; it may still do what it was asked."""


class RobotThread:
    """Runs callables one after the other in a thread of its own."""

    def __init__(self, name: str, nice: int) -> None:
        """Start the thread.

        Args:
            name: Thread name, seen in `top -H`.
            nice: Niceness asked for; the control thread of libfranka inherits it. Kept at 0
                where the process may not raise its priority.
        """
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Any] | None] = queue.SimpleQueue()
        self._nice = nice
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], R], timeout_s: float) -> R:
        """Run `function` in the thread and wait for its result.

        Raises:
            NoAnswerError: The result did not come in time; what comes next waits behind it.
        """
        future = self.post(function)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError as error:
            # From Python 3.11 on a TimeoutError raised inside the job looks the same.
            if future.done():
                raise
            raise NoAnswerError(f"no answer within {timeout_s:g} s") from error

    def post(self, function: Callable[[], R]) -> concurrent.futures.Future[R]:
        """Run `function` in the thread after what waits there already; does not block."""
        future: concurrent.futures.Future[R] = concurrent.futures.Future()
        self._jobs.put((function, future))
        return future

    def stop(self, timeout_s: float) -> bool:
        """End the thread after the jobs it has.

        Returns:
            Whether it ended in time.
        """
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        raise_priority(self._nice)
        while True:
            job = self._jobs.get()
            if job is None:
                return
            function, future = job
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                _forget_locals(error)
                future.set_exception(error)
            # A job kept alive here would keep the robot's only connection alive with it.
            del job, function, future


def _forget_locals(error: BaseException | None) -> None:
    # Whoever keeps the exception would keep the robot in its frames, and with it the only
    # connection that the control box grants.
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def drop_realtime() -> None:
    """Put the calling thread back to the ordinary scheduling policy."""
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def raise_priority(nice: int) -> bool:
    """Set the niceness of the calling thread.

    Returns:
        Whether the system allowed it.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
    except OSError:
        return False
    return True


def raise_group_priority(nice: int) -> bool:
    """Set the niceness of the session's scheduling group.

    Where the kernel groups tasks by session (autogroup, usual on desktops), the niceness of a
    thread counts only within its session, and each process of a launcher may have its own.

    Returns:
        Whether the system has such groups and allowed it.
    """
    try:
        Path("/proc/self/autogroup").write_text(str(nice))
    except OSError:
        return False
    return True


def thread_policies() -> dict[int, int]:
    """Scheduling policy of every thread of this process, native threads included.

    Returns:
        Native thread id to `os.SCHED_*`.
    """
    policies = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            # The thread ended between listing and reading.
            continue
        policies[int(task.name)] = int(fields[_POLICY_FIELD])
    return policies
