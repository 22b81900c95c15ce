# SPDX-License-Identifier: Apache-2.0
"""The clock that paces: steady, whatever happens to the time of day."""

from __future__ import annotations

from rclpy.clock import Clock

try:
    from rclpy.clock_type import ClockType
except ImportError:  # Humble
    from rclpy.clock import ClockType  # type: ignore[attr-defined]


def steady_clock() -> Clock:
    """A clock for timers that must not jump when the time of day is set."""
    return Clock(clock_type=ClockType.STEADY_TIME)
