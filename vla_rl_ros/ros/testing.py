# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests on a real graph: wait for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.executors import Executor


def spin_until(executor: Executor, predicate: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    """Spin until `predicate` holds.

    Returns:
        Whether it held before the timeout.
    """
    deadline_s = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline_s:
            return False
        executor.spin_once(timeout_sec=0.01)
    return True
