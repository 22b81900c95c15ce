# SPDX-License-Identifier: Apache-2.0
"""The robot's own thread: results, time limits, real-time priority, nothing kept alive."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest

from vla_rl_ros.core.errors import DeviceError
from vla_rl_ros.hardware.robot_thread import (
    RobotThread,
    drop_realtime,
    raise_priority,
    thread_policies,
)


@pytest.fixture
def thread():
    made = RobotThread("robot", nice=0)
    yield made
    assert made.stop(5.0)


def test_results_and_errors_come_back_to_the_caller(thread: RobotThread) -> None:
    assert thread.call(threading.get_native_id, 5.0) != threading.get_native_id()
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 / 0, 5.0)


def test_a_job_that_hangs_is_a_sentence(thread: RobotThread) -> None:
    release = threading.Event()
    with pytest.raises(DeviceError, match=r"no answer within 0.05 s"):
        thread.call(lambda: release.wait(5.0), 0.05)
    release.set()


def test_real_time_priority_stays_in_the_one_thread_and_can_be_dropped(
    thread: RobotThread,
) -> None:
    def take() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))

    try:
        thread.call(take, 5.0)
    except PermissionError:
        pytest.skip("this user has no real-time rights")
    robot = thread.call(threading.get_native_id, 5.0)
    fifo = {tid for tid, policy in thread_policies().items() if policy == os.SCHED_FIFO}
    assert fifo == {robot}
    thread.call(drop_realtime, 5.0)
    assert os.SCHED_FIFO not in thread_policies().values()


def test_an_error_keeps_nothing_of_its_job_alive(thread: RobotThread) -> None:
    class Connection:
        pass

    seen: list[weakref.ref[Connection]] = []

    def fail() -> None:
        connection = Connection()
        seen.append(weakref.ref(connection))
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused") as caught:
        thread.call(fail, 5.0)
    gc.collect()
    assert caught.value.__traceback__ is not None
    assert seen[0]() is None


def test_a_priority_that_is_not_allowed_is_said() -> None:
    assert raise_priority(os.getpriority(os.PRIO_PROCESS, 0))
