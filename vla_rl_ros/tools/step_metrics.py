# SPDX-License-Identifier: Apache-2.0
"""Figures of a step response and of a stream, from recorded samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from vla_rl_ros.core.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """A step response in numbers.

    Attributes:
        t63_ms: Time from the step to 63 % of it, NaN when never reached.
        overshoot_percent: Largest excess over the step, in percent of it.
        steady_error_mm: Step minus mean displacement over the last 0.3 s.
        speed_max_m_per_s: Largest speed, over 20 ms windows.
    """

    t63_ms: float
    overshoot_percent: float
    steady_error_mm: float
    speed_max_m_per_s: float

    def rounded(self) -> dict[str, float]:
        """As a dictionary with two decimals."""
        return {key: round(value, 2) for key, value in asdict(self).items()}


def step_metrics(time_s: FloatArray, position_m: FloatArray, step_m: float) -> StepMetrics:
    """Measure a step response.

    Args:
        time_s: Sample times with the step at 0, shape (n,), increasing.
        position_m: Displacement along the step since the step, shape (n,).
        step_m: Height of the step, positive.

    Returns:
        Its figures.
    """
    reached = np.flatnonzero(position_m >= 0.63 * step_m)
    tail = position_m[time_s >= time_s[-1] - 0.3]
    grid_s = np.arange(time_s[0], time_s[-1], 0.02)
    speed = np.diff(np.interp(grid_s, time_s, position_m)) / 0.02
    return StepMetrics(
        t63_ms=1e3 * float(time_s[reached[0]]) if reached.size else float("nan"),
        overshoot_percent=max(0.0, 100.0 * (float(position_m.max()) - step_m) / step_m),
        steady_error_mm=1e3 * (step_m - float(tail.mean())),
        speed_max_m_per_s=float(speed.max()) if speed.size else 0.0,
    )


def period_jitter_p99_ms(stamps_s: FloatArray, period_s: float) -> float:
    """99th percentile of the distance between actual and nominal period."""
    return 1e3 * float(np.percentile(np.abs(np.diff(stamps_s) - period_s), 99))
