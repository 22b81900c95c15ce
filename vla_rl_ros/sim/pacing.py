# SPDX-License-Identifier: Apache-2.0
"""When the next simulation step is due, and how well the schedule is kept.

Deadlines are absolute: a late wake-up does not move the ones after it, so a simulation that is
fast enough runs at exactly the wanted rate. What cannot be caught up within a tenth of a second
is given up and counted instead of being replayed as a burst.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_MARK_EVERY_STEPS = 100
_NUM_MARKS = 21
_NUM_BUSY_SAMPLES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceStats:
    """How the schedule is kept.

    Attributes:
        num_steps: Steps since the start.
        real_time_factor: Simulated over wall time, last two simulated seconds.
        episode_real_time_factor: The same since the last `mark_episode`.
        busy_p50_ms: Median time spent in a step, last four thousand steps.
        busy_p99_ms: 99th percentile of the same.
        busy_max_ms: Worst of the same.
        backlog_s: How far the schedule is behind now.
        num_backlogs_given_up: How often a backlog was dropped.
        backlog_given_up_s: Wall time dropped in total.
    """

    num_steps: int
    real_time_factor: float
    episode_real_time_factor: float
    busy_p50_ms: float
    busy_p99_ms: float
    busy_max_ms: float
    backlog_s: float
    num_backlogs_given_up: int
    backlog_given_up_s: float


class Pacer:
    """Absolute schedule of simulation steps.

    Call `wait` after each step. With factor 2 a step of 1 ms gets 0.5 ms of wall time; with factor
    None steps run back to back.
    """

    def __init__(
        self,
        period_s: float,
        factor: float | None = 1.0,
        *,
        max_backlog_s: float = 0.1,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Start the schedule now.

        Args:
            period_s: Simulated time of a step.
            factor: Simulated over wall time, None for as fast as possible.
            max_backlog_s: Wall time behind which the schedule starts anew.
            clock: Monotonic seconds.
            sleep: Waits that many seconds.

        Raises:
            ValueError: If period or factor is not positive.
        """
        if period_s <= 0.0 or (factor is not None and factor <= 0.0):
            raise ValueError(f"period {period_s} s and factor {factor} must be positive")
        self._period_s = period_s
        self._slot_s = None if factor is None else period_s / factor
        self._max_backlog_s = max_backlog_s
        self._clock, self._sleep = clock, sleep
        self._busy_s = array("d", bytes(8 * _NUM_BUSY_SAMPLES))
        self._num_steps = 0
        self._backlog_s = 0.0
        self._num_given_up = 0
        self._given_up_s = 0.0
        self.restart()

    @property
    def is_free_running(self) -> bool:
        """Whether there is no schedule."""
        return self._slot_s is None

    def restart(self) -> None:
        """Begin schedule and windows at this moment, after a pause that was meant."""
        now_s = self._clock()
        self._deadline_s = self._step_start_s = now_s
        self._marks: deque[tuple[float, int]] = deque([(now_s, self._num_steps)], _NUM_MARKS)
        self._episode_mark = self._marks[0]

    def mark_episode(self) -> None:
        """Begin the window of the episode's real-time factor."""
        self._episode_mark = (self._clock(), self._num_steps)

    def wait(self) -> None:
        """End a step: note how long it took and sleep until the next one is due."""
        now_s = self._clock()
        self._busy_s[self._num_steps % _NUM_BUSY_SAMPLES] = now_s - self._step_start_s
        self._num_steps += 1
        if self._num_steps % _MARK_EVERY_STEPS == 0:
            self._marks.append((now_s, self._num_steps))
        if self._slot_s is not None:
            now_s = self._wait_for_slot(now_s, self._slot_s)
        self._step_start_s = now_s

    def _wait_for_slot(self, now_s: float, slot_s: float) -> float:
        self._deadline_s += slot_s
        ahead_s = self._deadline_s - now_s
        if ahead_s > 0.0:
            self._backlog_s = 0.0
            self._sleep(ahead_s)
            return self._clock()
        self._backlog_s = -ahead_s
        if self._backlog_s > self._max_backlog_s:
            self._num_given_up += 1
            self._given_up_s += self._backlog_s
            self._backlog_s = 0.0
            self._deadline_s = now_s
        return now_s

    def stats(self) -> PaceStats:
        """Measure now."""
        num_samples = max(1, min(self._num_steps, _NUM_BUSY_SAMPLES))
        busy_ms = np.frombuffer(self._busy_s, dtype=np.float64)[:num_samples] * 1e3
        p50_ms, p99_ms = np.percentile(busy_ms, [50.0, 99.0])
        return PaceStats(
            num_steps=self._num_steps,
            real_time_factor=self._factor_since(self._marks[0]),
            episode_real_time_factor=self._factor_since(self._episode_mark),
            busy_p50_ms=float(p50_ms),
            busy_p99_ms=float(p99_ms),
            busy_max_ms=float(busy_ms.max()),
            backlog_s=self._backlog_s,
            num_backlogs_given_up=self._num_given_up,
            backlog_given_up_s=self._given_up_s,
        )

    def _factor_since(self, mark: tuple[float, int]) -> float:
        wall_s = self._clock() - mark[0]
        if wall_s <= 0.0:
            return 0.0
        return (self._num_steps - mark[1]) * self._period_s / wall_s
