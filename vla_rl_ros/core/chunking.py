# SPDX-License-Identifier: Apache-2.0
"""Chunks on the grid of control ticks: which element belongs to which tick, and what is promised.

Element i of a chunk belongs to the tick ``t_obs + i``: a chunk that arrives d ticks after its
observation is used from index d on. Used by the actor's plan and by the inference side, which
follows it. Time is only a stamp; there is no clock in here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.geometry import offset_pose
from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX
from vla_rl_ros.core.ticks import nearest_index
from vla_rl_ros.core.types import ActionChunk, FloatArray, Pose


class Verdict(enum.Enum):
    """What became of a chunk; the values are the keys of diagnostics counters."""

    ACCEPTED = "accepted"
    OTHER_EPOCH = "other_epoch"
    """Inferred before a reset, or for an episode that has not begun here."""
    BEFORE_TAKEOVER = "before_takeover"
    """Its observation is not newer than the last tick that a human drove."""
    BAD_PERIOD = "bad_period"
    """Made for another control rate."""
    OLDER = "older"
    """From an observation that is not newer than that of the active chunk."""
    TOO_LATE = "too_late"
    """Its last element belongs to a tick that has passed."""
    LATER_THAN_PROMISED = "later_than_promised"
    """Its locked rows end before the next tick, so its next element continues something else."""
    BROKEN_PROMISE = "broken_promise"
    """What was executed since its observation is not what it was conditioned on."""
    FROM_FUTURE = "from_future"
    """Its first element belongs to a tick after the next one."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The element that belongs to one tick.

    Attributes:
        index: Index in the chunk.
        action: Shape (7,), SI.
        chunk: The chunk it is taken from; where several vote, the newest of them.
    """

    index: int
    action: FloatArray
    chunk: ActionChunk


@dataclass(frozen=True, slots=True, eq=False)
class PlacedChunk:
    """A chunk with the tick of its element 0.

    Attributes:
        chunk: The chunk.
        origin_ns: Tick of element 0.
    """

    chunk: ActionChunk
    origin_ns: int

    def index(self, tick_ns: int) -> int:
        """Index of the element that belongs to a tick, possibly beyond the ends."""
        return nearest_index(tick_ns, self.origin_ns, self.chunk.period_ns)

    def step(self, tick_ns: int) -> Step | None:
        """The element that belongs to a tick, None when there is none."""
        index = self.index(tick_ns)
        if not 0 <= index < self.chunk.horizon:
            return None
        return Step(index, self.chunk.actions[index], self.chunk)

    def remaining(self, tick_ns: int) -> int:
        """Number of elements that belong to `tick_ns` and later ticks."""
        return max(0, self.chunk.horizon - max(0, self.index(tick_ns)))

    def rows(self, tick_ns: int, num_ticks: int) -> FloatArray:
        """Elements of `num_ticks` ticks from `tick_ns` on, shape (n, 7), fewer at the end."""
        start = max(0, self.index(tick_ns))
        return self.chunk.actions[start : start + max(0, num_ticks)].copy()


@dataclass(frozen=True, slots=True, eq=False)
class Seam:
    """Where an accepted chunk takes over.

    Attributes:
        tick_ns: First tick whose element is the new chunk's own, behind what it repeats.
        old: What the plan before had for that tick, shape (7,), None when it had ended.
        new: The new chunk's element, shape (7,).
    """

    tick_ns: int
    old: FloatArray | None
    new: FloatArray


def hold_action(gripper: float) -> FloatArray:
    """The action that moves nothing, shape (7,)."""
    action = np.zeros(ACTION_DIM)
    action[GRIPPER_INDEX] = gripper
    return action


def is_as_promised(promised: FloatArray, happened: FloatArray | None) -> bool:
    """Whether a locked row came true, bit for bit.

    Args:
        promised: The row, shape (7,).
        happened: Base action of that tick, None when the arm held.
    """
    if happened is None:
        return not np.any(promised[:GRIPPER_INDEX])
    return promised.tobytes() == happened.tobytes()


def chunk_poses(chunk: ActionChunk, start: Pose) -> list[Pose]:
    """TCP poses of a chunk whose increments follow one another from `start`, length H + 1.

    For display: increments that are anchored at measured poses lead here only if the arm follows
    without error.
    """
    poses = [start]
    for action in chunk.actions:
        poses.append(offset_pose(poses[-1], action[:3], action[3:6]))
    return poses
