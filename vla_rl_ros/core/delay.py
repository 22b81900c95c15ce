# SPDX-License-Identifier: Apache-2.0
"""How long an answer takes in control ticks: measured, forgotten, and guarded after a loss.

A delay of d means that a chunk observed at tick t is first used at tick t + d, index d. It is
measured in fractions of a tick, so that answers that arrive just before a tick are told from those
with time to spare. Called by `core.requests` with every answer; there is no clock in here.
"""

from __future__ import annotations

import math
from collections import deque

from vla_rl_ros.core.errors import ConfigError

_SLACK_TICKS = 0.25
"""Added where caution is free: messages and ticks have jitter of their own."""


class DelayEstimator:
    """Delay that the next chunk should be conditioned for.

    A quantile of the newest measurements that leaves room for two spikes within the window: a
    spike costs its own chunk, not sixteen. The first measurements of a process are of a cold model
    and count only until there are others. Until a quarter of the window is filled the estimate
    does not fall below what was expected.
    """

    def __init__(
        self, *, size: int = 16, quantile: float = 0.85, num_warm_up: int = 1, expected: int = 1
    ) -> None:
        """Start without measurements.

        Args:
            size: Number of measurements that count.
            quantile: Share of them that the estimate covers.
            num_warm_up: Number of first measurements that are left out.
            expected: Delay in ticks before there are measurements, from the latency budget.

        Raises:
            ConfigError: Values that make no window.
        """
        if size < 1 or not 0.0 < quantile <= 1.0 or expected < 0 or num_warm_up < 0:
            raise ConfigError(
                f"size={size}, quantile={quantile}, num_warm_up={num_warm_up}, "
                f"expected={expected} give no window"
            )
        self._quantile = quantile
        self._expected = expected
        self._num_warm_up = num_warm_up
        self._cold = 0
        self._size = size
        self._latencies: deque[float] = deque(maxlen=size)
        self._lost: int | None = None

    def add(self, latency_ticks: float, *, is_late: bool = False) -> None:
        """Note how long an answer took.

        Args:
            latency_ticks: Time from the tick of the observation to the arrival, in ticks.
            is_late: Whether the chunk had to be dropped, because it came later than it was
                conditioned for.
        """
        latency_ticks = max(0.0, latency_ticks)
        self._lost = delay_of(latency_ticks) if is_late else None
        if self._num_warm_up > 0:
            self._num_warm_up -= 1
            self._cold = max(self._cold, delay_of(latency_ticks))
        else:
            self._latencies.append(latency_ticks)

    def estimate(self) -> int:
        """Delay in ticks, at least 1."""
        if not self._latencies:
            return max(1, self._expected, self._cold)
        ordered = sorted(self._latencies)
        covered = ordered[math.ceil(self._quantile * len(ordered)) - 1]
        measured = delay_of(covered)
        is_known = 4 * len(ordered) >= self._size
        return measured if is_known else max(measured, self._expected)

    def careful(self, num_promised: int) -> int:
        """Delay to condition the next request for: the estimate, and caution where it pays.

        One tick more where the slowest answer of the window took it or nearly did. As long as the
        slowest where the plan would end before a second try, and after a loss as long as the lost
        one.

        Args:
            num_promised: Elements that are left to be played. Further ahead caution would only
                promise to stand still.
        """
        estimate = self.estimate()
        slowest = delay_of(max(self._latencies, default=0.0) + _SLACK_TICKS)
        has_second_try = slowest + estimate <= num_promised
        wanted = self._lost or (min(slowest, estimate + 1) if has_second_try else slowest)
        return max(estimate, min(wanted, num_promised))


def delay_of(latency_ticks: float) -> int:
    """Index of the element that belongs to the first tick after `latency_ticks`."""
    return math.floor(latency_ticks) + 1
