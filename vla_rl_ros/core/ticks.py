# SPDX-License-Identifier: Apache-2.0
"""The control tick as a grid of stamps. Called by the node that owns the tick.

Stamps, not counters, tie chunks, actions and observations together, so they must lie exactly one
period apart although the clocks that produce them are read with jitter.
"""

from __future__ import annotations

from vla_rl_ros.core.errors import ConfigError


def nearest_index(stamp_ns: int, origin_ns: int, period_ns: int) -> int:
    """Number of periods from `origin_ns` to `stamp_ns`, rounded, halves upwards.

    Integer arithmetic, so that an offset of exactly half a period gives consecutive numbers for
    consecutive ticks; Python's rounding to even would repeat one and skip the next.
    """
    return (2 * (stamp_ns - origin_ns) + period_ns) // (2 * period_ns)


class TickGrid:
    """Snaps scheduled times to a grid of exact periods, and moves the grid when the clock does."""

    def __init__(self, period_ns: int, tolerance_ns: int = 5_000_000) -> None:
        """Start without a grid; the first tick defines it.

        Args:
            period_ns: Control period.
            tolerance_ns: Distance from the grid beyond which the clock was set, or drifted, and
                the grid starts anew.

        Raises:
            ConfigError: Unless ``0 < 2 * tolerance_ns < period_ns``.
        """
        if not 0 < 2 * tolerance_ns < period_ns:
            raise ConfigError(f"need 0 < 2 * tolerance_ns={tolerance_ns} < period_ns={period_ns}")
        self._period_ns = period_ns
        self._tolerance_ns = tolerance_ns
        self._last_ns: int | None = None
        self.num_skipped = 0
        self.num_restarts = 0

    @property
    def next_ns(self) -> int | None:
        """Stamp of the coming tick, None before the first."""
        return None if self._last_ns is None else self._last_ns + self._period_ns

    def stamp(self, scheduled_ns: int) -> int:
        """Stamp of the tick that was scheduled for `scheduled_ns`.

        Args:
            scheduled_ns: When the timer was due, read from a clock with jitter.

        Returns:
            A stamp a whole number of periods after the last one; `scheduled_ns` itself for the
            first tick and after a step of the clock.
        """
        last_ns = self._last_ns
        if last_ns is None:
            self._last_ns = scheduled_ns
            return scheduled_ns
        num_periods = nearest_index(scheduled_ns, last_ns, self._period_ns)
        candidate_ns = last_ns + num_periods * self._period_ns
        if num_periods < 1 or abs(scheduled_ns - candidate_ns) > self._tolerance_ns:
            self.num_restarts += 1
            self._last_ns = scheduled_ns
            return scheduled_ns
        self.num_skipped += num_periods - 1
        self._last_ns = candidate_ns
        return candidate_ns
