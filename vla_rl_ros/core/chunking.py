# SPDX-License-Identifier: Apache-2.0
"""Which element of which chunk belongs to a control tick.

Element i of a chunk belongs to the tick ``t_obs + i`` and to no other: a chunk that arrives d
ticks after its observation is used from index d, and an element is never played late. Called by
the actor (to play) and by the inference side (to know what is promised). Time is only a stamp;
there is no clock in here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.spec import ACTION_DIM
from vla_rl_ros.core.ticks import nearest_index
from vla_rl_ros.core.types import ActionChunk, FloatArray, Pose


class Verdict(enum.Enum):
    """What became of an offered chunk; the values are the keys of diagnostics counters."""

    ACCEPTED = "accepted"
    OTHER_EPOCH = "other_epoch"
    """Inferred before a reset or a takeover, or for an episode that has not begun here."""
    BAD_PERIOD = "bad_period"
    """Made for another control rate."""
    OLDER = "older"
    """From an observation that is not newer than that of the active chunk."""
    TOO_LATE = "too_late"
    """Its last element belongs to a tick that has passed."""
    FROM_FUTURE = "from_future"
    """Its first element belongs to a tick after the next one."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The element that belongs to one tick.

    Attributes:
        index: Index in the chunk.
        action: Shape (7,), SI.
        chunk: The chunk it is taken from.
    """

    index: int
    action: FloatArray
    chunk: ActionChunk


class ChunkSchedule:
    """The active chunk of the present epoch."""

    def __init__(self, period_ns: int) -> None:
        """Start empty in epoch 0.

        Args:
            period_ns: Control period; chunks of another period are refused.

        Raises:
            ConfigError: If the period is not positive.
        """
        if period_ns <= 0:
            raise ConfigError(f"period_ns={period_ns} must be positive")
        self._period_ns = period_ns
        self._active: ActionChunk | None = None
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch whose chunks are accepted."""
        return self._epoch

    @property
    def active(self) -> ActionChunk | None:
        """The chunk that is being played."""
        return self._active

    def reset(self, epoch: int) -> None:
        """Forget the active chunk and accept only chunks of `epoch` from now on."""
        self._active = None
        self._epoch = epoch

    def offer(self, chunk: ActionChunk, next_tick_ns: int) -> Verdict:
        """Make a chunk the active one if it may still be played.

        Chunks are ordered by the stamp of their observation, not by id: ids start again with the
        policy's process, which may be restarted while an episode runs.

        Args:
            chunk: The new chunk.
            next_tick_ns: Stamp of the next tick to be executed.

        Returns:
            `Verdict.ACCEPTED`, or why it was dropped.
        """
        if chunk.epoch != self._epoch:
            return Verdict.OTHER_EPOCH
        if chunk.period_ns != self._period_ns:
            return Verdict.BAD_PERIOD
        active = self._active
        if active is not None and chunk.stamp_ns <= active.stamp_ns:
            return Verdict.OLDER
        index = self._index(chunk, next_tick_ns)
        if index >= chunk.horizon:
            return Verdict.TOO_LATE
        if index < 0:
            return Verdict.FROM_FUTURE
        self._active = chunk
        return Verdict.ACCEPTED

    def at(self, tick_ns: int) -> Step | None:
        """The element that belongs to a tick, None when the active chunk has none (underflow)."""
        chunk = self._active
        if chunk is None:
            return None
        index = self._index(chunk, tick_ns)
        return Step(index, chunk.actions[index], chunk) if 0 <= index < chunk.horizon else None

    def remaining(self, tick_ns: int) -> int:
        """Number of elements that belong to `tick_ns` and later ticks."""
        chunk = self._active
        if chunk is None:
            return 0
        return max(0, chunk.horizon - max(0, self._index(chunk, tick_ns)))

    def committed(self, tick_ns: int, num_ticks: int) -> FloatArray:
        """The elements promised to the arm for `num_ticks` ticks from `tick_ns` on.

        This is the prefix that a chunk observed at `tick_ns` must repeat.

        Returns:
            Shape (n, 7), fewer rows than `num_ticks` when the active chunk ends before.
        """
        chunk = self._active
        if chunk is None:
            return np.zeros((0, ACTION_DIM))
        start = max(0, self._index(chunk, tick_ns))
        return chunk.actions[start : start + max(0, num_ticks)].copy()

    def _index(self, chunk: ActionChunk, tick_ns: int) -> int:
        return nearest_index(tick_ns, chunk.stamp_ns, self._period_ns)


def chunk_poses(chunk: ActionChunk, start: Pose) -> list[Pose]:
    """TCP poses of a chunk whose increments follow one another from `start`, length H + 1.

    For display: increments that are anchored at measured poses lead here only if the arm follows
    without error.
    """
    poses = [start]
    for action in chunk.actions:
        poses.append(offset_pose(poses[-1], action[:3], action[3:6]))
    return poses
