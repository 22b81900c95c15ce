# SPDX-License-Identifier: Apache-2.0
"""Timing statistics of the control loop over a sliding window."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.types import FloatArray


class Window:
    """The newest values in a ring; one thread adds, any thread reads."""

    def __init__(self, size: int) -> None:
        """Allocate room for `size` values."""
        self._values = np.zeros(size)
        self._count = 0

    def add(self, value: float) -> None:
        """Add a value, forgetting the oldest of a full window."""
        self._values[self._count % self._values.size] = value
        self._count += 1

    @property
    def count(self) -> int:
        """How many values were ever added."""
        return self._count

    def values(self) -> FloatArray:
        """Copy of what is in the window, in no particular order."""
        return self._values[: min(self._count, self._values.size)].copy()

    def percentile(self, percent: float) -> float:
        """Percentile of the window, NaN when it is empty."""
        values = self.values()
        return float(np.percentile(values, percent)) if values.size else float("nan")


class LoopStatistics:
    """Reference stream, latencies and reaction times.

    Attributes:
        period_s: Times between consecutive references of one engagement.
        latency_s: Header stamp of a target to the first reference computed from it.
        hold_s: Arrival of the last target to the cycle that froze the reference.
        stop_s: Arrival of the last target to the arm at rest.
        cycle_s: Times the cycles took, pacing excluded.
    """

    def __init__(self, period_s: float) -> None:
        """Set the nominal period that jitter is measured against."""
        self._nominal_s = period_s
        self._last_reference_s: float | None = None
        self.period_s = Window(4096)
        self.latency_s = Window(1024)
        self.hold_s = Window(256)
        self.stop_s = Window(256)
        self.cycle_s = Window(4096)

    def reference_sent(self, now_s: float) -> None:
        """Note that a reference went to the arm."""
        if self._last_reference_s is not None:
            self.period_s.add(now_s - self._last_reference_s)
        self._last_reference_s = now_s

    def stream_ended(self) -> None:
        """Forget the last reference: the next one belongs to another engagement."""
        self._last_reference_s = None

    def summary(self) -> dict[str, float]:
        """Figures for diagnostics; NaN where nothing was measured yet."""
        periods_s = self.period_s.values()
        jitter_s = np.abs(periods_s - self._nominal_s)
        nan = float("nan")
        has_periods = periods_s.size > 0
        return {
            "reference_rate_hz": float(1.0 / periods_s.mean()) if has_periods else nan,
            "reference_jitter_p50_ms": float(1e3 * np.median(jitter_s)) if has_periods else nan,
            "reference_jitter_p99_ms": (
                float(1e3 * np.percentile(jitter_s, 99)) if has_periods else nan
            ),
            "target_to_arm_p50_ms": 1e3 * self.latency_s.percentile(50),
            "target_to_arm_p99_ms": 1e3 * self.latency_s.percentile(99),
            "hold_p99_ms": 1e3 * self.hold_s.percentile(99),
            "stop_p99_ms": 1e3 * self.stop_s.percentile(99),
            "cycle_p99_ms": 1e3 * self.cycle_s.percentile(99),
        }
