# SPDX-License-Identifier: Apache-2.0
"""Real-time policy for the threads through which an image goes on its way to the arm.

An ordinary thread that wakes up may have to wait until others have used up their slice, up to 4 ms
per hop with a scheduler clock of 250 Hz, whatever its niceness. Executors and middleware of the
nodes that `run` is told are urgent do little and often, so they go first where the system permits
it: as root, or with the limit ``rtprio`` that libfranka asks for as well. Elsewhere niceness has
to do. Policies and the loading of models never run that way: they would starve the arm. What is
further along goes first, or the answer to a message would wait until everybody has heard the
message.
"""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Urgency(enum.IntEnum):
    """Real-time priorities, below the threads of interrupts (50) and of libfranka (99)."""

    NONE = 0
    """The ordinary policy."""
    JUDGEMENT = 5
    """From a frame to whether the task is done, if that is a matter of milliseconds."""
    IMAGES = 10
    """From a frame to the policy; a frame takes 2 ms, and no tick waits for it."""
    TICK = 20
    """The tick, from which a command begins."""
    COMMAND = 30
    """From the tick to the arm, and to the next inference."""


def hurry(urgency: Urgency, *, is_for_callbacks: bool = True) -> bool:
    """Give the threads that this process has now the real-time policy.

    Threads inherit it: those of a model must be started in `unhurried`.

    Args:
        urgency: How urgent.
        is_for_callbacks: Whether the calling thread is meant as well, or the middleware only.

    Returns:
        Whether the system allowed it.
    """
    if urgency is Urgency.NONE:
        return True
    threads = {int(task.name) for task in Path("/proc/self/task").iterdir()}
    if not is_for_callbacks:
        threads.remove(threading.get_native_id())
    try:
        for thread in threads:
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(urgency))
    except PermissionError:
        return False
    return True


def hurry_along() -> bool:
    """Give all threads of this process the urgency of the calling one; as `hurry`."""
    return (urgency := own_urgency()) is not Urgency.NONE and hurry(urgency)


def own_urgency() -> Urgency:
    """Urgency of the calling thread; the highest that does not exceed what someone else set."""
    if os.sched_getscheduler(0) != os.SCHED_RR:
        return Urgency.NONE
    priority = os.sched_getparam(0).sched_priority
    return max(urgency for urgency in Urgency if urgency <= priority)


def hurry_thread(urgency: Urgency) -> bool:
    """Give the calling thread alone an urgency, or none.

    Returns:
        Whether the system allowed it.
    """
    policy = os.SCHED_OTHER if urgency is Urgency.NONE else os.SCHED_RR
    try:
        os.sched_setscheduler(0, policy, os.sched_param(urgency))
    except PermissionError:
        return False
    return True


@contextmanager
def unhurried() -> Iterator[None]:
    """Run the calling thread with the ordinary policy for as long as something takes its time."""
    if os.sched_getscheduler(0) != os.SCHED_RR:
        yield
        return
    urgency = os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        yield
    finally:
        with suppress(PermissionError):  # the right was given up on the way
            os.sched_setscheduler(0, os.SCHED_RR, urgency)
