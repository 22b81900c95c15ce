# SPDX-License-Identifier: Apache-2.0
"""When to ask the policy for the next chunk, and what the answer is conditioned on.

Follows the executed ticks: what is promised while the model thinks, how long answers really take
in consumed ticks, and whether one is under way. Called by the inference node; stamps come from
the ticks, there is no clock in here.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from vla_rl_ros.core.chunking import ChunkSchedule, Verdict
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.ticks import nearest_index
from vla_rl_ros.core.types import ActionChunk, FloatArray


class DelayWindow:
    """Delay in consumed ticks that the next chunk should be conditioned for.

    A high quantile of the newest measurements, so that a spike is forgotten after `size` chunks.
    """

    def __init__(self, *, size: int = 16, quantile: float = 0.95, initial: int = 1) -> None:
        """Start without measurements.

        Args:
            size: Number of measurements that count.
            quantile: Share of them that the estimate covers.
            initial: Estimate before the first measurement.

        Raises:
            ConfigError: Values that make no window.
        """
        if size < 1 or not 0.0 < quantile <= 1.0 or initial < 0:
            raise ConfigError(
                f"size={size}, quantile={quantile}, initial={initial} give no window"
            )
        self._quantile = quantile
        self._initial = initial
        self._delays: deque[int] = deque(maxlen=size)

    def add(self, delay_ticks: int) -> None:
        """Note the index at which a chunk was first used."""
        self._delays.append(max(0, delay_ticks))

    def estimate(self) -> int:
        """Smallest measured delay that covers the quantile, rounded up."""
        if not self._delays:
            return self._initial
        ordered = sorted(self._delays)
        return ordered[math.ceil(self._quantile * len(ordered)) - 1]


class ChunkRequests:
    """Decides at each executed tick whether the next inference starts now.

    Counts from the observation of the last request, not from the last accepted chunk, so that a
    dropped chunk or a failed inference never starves the arm.
    """

    def __init__(self, period_ns: int, delay: DelayWindow | None = None) -> None:
        """Start in epoch 0 with nothing requested.

        Args:
            period_ns: Control period.
            delay: Delay estimate to use.
        """
        self.delay = delay or DelayWindow()
        self._period_ns = period_ns
        self._schedule = ChunkSchedule(period_ns)
        self._num_sent = 0
        self.reset(0)

    @property
    def epoch(self) -> int:
        """The epoch whose ticks count."""
        return self._schedule.epoch

    @property
    def is_pending(self) -> bool:
        """Whether the newest request has no answer yet."""
        return self._pending is not None

    def reset(self, epoch: int) -> None:
        """Begin a new epoch: nothing is promised, nothing is pending; delays stay known."""
        self._schedule.reset(epoch)
        self._pending: int | None = None
        self._requested_ns: int | None = None
        self._played_id: int | None = None
        self.is_first = True
        """Whether nothing was requested in this epoch yet."""
        self.last_row: ExecutedAction | None = None
        """The newest executed tick of this epoch."""

    def on_tick(self, row: ExecutedAction, execute_ticks: int) -> bool:
        """Note an executed tick of this epoch.

        Args:
            row: What was executed.
            execute_ticks: Ticks to execute from one request to the next.

        Returns:
            Whether to request a chunk observed at this tick: the ticks are consumed, or the tick
            had no element, and no request is pending.
        """
        self.last_row = row
        if row.chunk_step != NO_STEP and row.chunk_id != self._played_id:
            # The first chunk of an epoch waits for the start; its age says nothing of the model.
            if self._played_id is not None:
                self.delay.add(row.chunk_step)
            self._played_id = row.chunk_id
        if self.is_pending:
            return False
        if self._requested_ns is None or row.source is Source.HOLD:
            return True
        consumed = nearest_index(row.stamp_ns, self._requested_ns, self._period_ns)
        # Far in the future: the clock was set back, and waiting for it would starve the arm.
        return consumed >= execute_ticks or consumed < -1

    def prefix(self, stamp_ns: int) -> FloatArray | None:
        """What is done from `stamp_ns` on while the answer is under way.

        The first row is what was executed in that tick, with residual and operator, because the
        arm moved by it; the following ones can only be the base actions that are promised.

        Returns:
            Shape (d, 7) with d up to the estimated delay, None when nothing is promised.
        """
        prefix = self._schedule.committed(stamp_ns, self.delay.estimate())
        row = self.last_row
        if row is not None and row.stamp_ns == stamp_ns:
            prefix = np.concatenate([row.executed[None], prefix[1:]])
        return prefix if len(prefix) else None

    def sent(self, stamp_ns: int) -> int:
        """Note that a chunk observed at `stamp_ns` is requested.

        Returns:
            The number of the request, unique within the process.
        """
        self._num_sent += 1
        self._pending = self._num_sent
        self._requested_ns = stamp_ns
        self.is_first = False
        return self._num_sent

    def answered(self, number: int) -> None:
        """Note that request `number` has its answer or has failed."""
        if number == self._pending:
            self._pending = None

    def published(self, chunk: ActionChunk, now_ns: int) -> Verdict:
        """Follow the schedule of the actor, which gets `chunk` at about the same time."""
        row = self.last_row
        next_ns = now_ns if row is None else row.stamp_ns + self._period_ns
        return self._schedule.offer(chunk, next_ns)
