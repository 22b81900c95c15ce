# SPDX-License-Identifier: Apache-2.0
"""Which tick the next row belongs to: each exactly once, on the grid of the actor's ticks."""

from __future__ import annotations

from vla_rl_ros.core.ticks import nearest_index

MAX_CATCH_UP_TICKS = 10
_CLOCK_STEP_NS = 100_000_000
"""Twice what a proposal may be ahead of the clock without the clock having been set."""


class RowGrid:
    """The stamps of the rows of one episode after the other.

    Attributes:
        row_ns: Stamp of the newest row, None before the first.
    """

    def __init__(self, period_ns: int) -> None:
        """Start without rows, and without a grid but that of the rows themselves."""
        self.period_ns = period_ns
        self.row_ns: int | None = None
        self._opened_ns = 0
        self._tick_ns: int | None = None

    def open(self, now_ns: int) -> None:
        """Begin an episode: its first row is a period away, or comes with an action."""
        self._opened_ns, self.row_ns = now_ns, None

    def on_tick(self, stamp_ns: int) -> None:
        """Learn the stamp of a tick of the actor."""
        self._tick_ns = stamp_ns

    def next_ns(self) -> int:
        """Stamp of the row after the newest one."""
        return self.after(self._last_ns())

    def is_ahead(self, now_ns: int, tick_ns: int | None) -> bool:
        """Whether the clock was set back by more than a period.

        Args:
            now_ns: Present time.
            tick_ns: Stamp of a tick that lasts, None without one.
        """
        newest_ns = self._last_ns() if tick_ns is None else max(self._last_ns(), tick_ns)
        return newest_ns - now_ns > max(self.period_ns, _CLOCK_STEP_NS)

    def _last_ns(self) -> int:
        return self._opened_ns if self.row_ns is None else self.row_ns

    def after(self, stamp_ns: int) -> int:
        """The tick that follows one, on the actor's grid where that is known."""
        next_ns = stamp_ns + self.period_ns
        if self._tick_ns is None:
            return next_ns
        num_periods = nearest_index(next_ns, self._tick_ns, self.period_ns)
        return self._tick_ns + num_periods * self.period_ns

    def caught_up(self, stamp_ns: int, now_ns: int) -> int:
        """The stamp, or a later one where the clock was set.

        Thousands of rows would keep the gate from its heartbeat.
        """
        num_behind = (now_ns - stamp_ns) // self.period_ns
        if num_behind < MAX_CATCH_UP_TICKS:
            return stamp_ns
        return stamp_ns + num_behind * self.period_ns
