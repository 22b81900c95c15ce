# SPDX-License-Identifier: Apache-2.0
"""Wait for what happens in another thread or process, never for a time.

Where the test spins an executor itself, `vla_rl_ros.ros.testing.spin_until` does the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def until(predicate: Callable[[], bool], timeout_s: float = 5.0, period_s: float = 0.002) -> bool:
    """Ask again and again until something holds; says whether it did in time."""
    deadline_s = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(period_s)
    return True
