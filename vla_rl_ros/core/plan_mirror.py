# SPDX-License-Identifier: Apache-2.0
"""The actor's plan as the inference side sees it: through the rows of executed ticks.

A row says which element of which chunk was played. Between publishing a chunk and the row that
shows it, nobody here knows whether the actor took it: such a chunk is *unseen*. Used by
`core.requests`, which asks for nothing while one is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from vla_rl_ros.core.chunking import PlacedChunk
from vla_rl_ros.core.delay import delay_of
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction
from vla_rl_ros.core.modes import AsyncSettings, Merge
from vla_rl_ros.core.types import ActionChunk

_LOST_AFTER_ROWS = 2
"""Rows without a chunk after which it is taken for lost, where no promise says it earlier."""
_NUM_KNOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fate:
    """What the actor made of a chunk.

    Attributes:
        chunk: The chunk.
        latency_ticks: Time from its observation to its arrival.
        is_played: Whether it was.
        is_late: Whether it was dropped, because it came later than it was conditioned for.
    """

    chunk: ActionChunk
    latency_ticks: float
    is_played: bool
    is_late: bool = False

    @property
    def measured(self) -> int:
        """Index at which it was first used, or could have been."""
        return delay_of(self.latency_ticks)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Published:
    chunk: ActionChunk
    latency_ticks: float
    num_rows: int


class PlanMirror:
    """Follows the plan; wrong for a tick at most, and then only in believing too little.

    Attributes:
        active: The chunk that is being played, None when the arm holds or plays one of somebody
            else's.
    """

    def __init__(self, settings: AsyncSettings) -> None:
        """Know nothing of the actor."""
        self._rules = settings.rules
        self._period_ns = settings.period_ns
        self.active: PlacedChunk | None = None
        self.drop()

    @property
    def is_waiting(self) -> bool:
        """Whether a chunk is unseen."""
        return self._unseen is not None

    def drop(self) -> None:
        """Nothing that was planned comes true any more: a reset, or a human drives."""
        self.active = None
        self._unseen: _Published | None = None
        self._known: deque[_Published] = deque(maxlen=_NUM_KNOWN)
        self._num_rows = 0

    def published(self, chunk: ActionChunk, now_ns: int) -> None:
        """Note that the actor gets `chunk` at about `now_ns`."""
        latency = max(0.0, (now_ns - chunk.stamp_ns) / self._period_ns)
        self._unseen = _Published(chunk=chunk, latency_ticks=latency, num_rows=self._num_rows)
        self._known.append(self._unseen)

    def follow(self, row: ExecutedAction) -> Fate | None:
        """Correct the picture by what was executed.

        Returns:
            The fate of the unseen chunk, once it is known.
        """
        self._num_rows += 1
        self.active = self._active_after(row)
        unseen = self._unseen
        if unseen is None:
            return None
        chunk = unseen.chunk
        latency = unseen.latency_ticks
        if self.active is not None and self.active.chunk is chunk:
            self._unseen = None
            # It may have crossed a tick on its way. The first chunk after a rest waits for its
            # start; its index tells of no delay.
            if chunk.delay_ticks:
                latency = max(latency, row.chunk_step - 1.0)
            return Fate(chunk=chunk, latency_ticks=latency, is_played=True)
        if not self._is_lost(unseen, row):
            return None
        self._unseen = None
        is_late = self._rules.is_locked and 0 < chunk.delay_ticks <= delay_of(latency)
        if is_late:
            # Sent within the last tick of its promise and not taken: the way took the rest.
            latency = max(latency, float(chunk.delay_ticks))
        return Fate(chunk=chunk, latency_ticks=latency, is_played=False, is_late=is_late)

    def _active_after(self, row: ExecutedAction) -> PlacedChunk | None:
        active = self.active
        if row.chunk_step == NO_STEP:
            # An element that was not executed says nothing of the following ones.
            return active if active is not None and active.remaining(row.stamp_ns) else None
        if active is None or active.chunk.chunk_id != row.chunk_id:
            origin_ns = row.stamp_ns - row.chunk_step * self._period_ns
            named = [p.chunk for p in self._known if p.chunk.chunk_id == row.chunk_id]
            active = PlacedChunk(named[-1], origin_ns) if named else None
        return active if active is not None and self._is_ours(active, row) else None

    def _is_ours(self, active: PlacedChunk, row: ExecutedAction) -> bool:
        """Whether the row's element is that of our chunk; a predecessor used the same ids."""
        if self._rules.merge is not Merge.REPLACE:
            return True
        step = active.step(row.stamp_ns)
        return (
            step is not None
            and step.index == row.chunk_step
            and step.action.tobytes() == row.base.tobytes()
        )

    def _is_lost(self, unseen: _Published, row: ExecutedAction) -> bool:
        chunk, is_played = unseen.chunk, row.chunk_step != NO_STEP
        is_overdue = self._num_rows - unseen.num_rows > _LOST_AFTER_ROWS
        if not self._rules.is_locked:
            return is_overdue
        if chunk.delay_ticks == 0:
            # Nothing was promised, so it cannot follow on what is played now.
            return is_played or is_overdue
        # A tick of another chunk at the end of the promise: it can only be dropped now. A hold
        # says less, it may be a proposal that did not get through.
        promised_ns = chunk.stamp_ns + chunk.delay_ticks * self._period_ns
        return row.stamp_ns >= promised_ns and (is_played or is_overdue)
