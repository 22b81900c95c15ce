# SPDX-License-Identifier: Apache-2.0
"""One row per control tick: what is stored of an episode.

An episode of T ticks is T rows and a closing one that holds the last observation and what the base
wanted there. `transitions` derives from rows what a learner is fed. Called by `replay`, the
training loops and whoever turns recordings into rows.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.errors import ConfigError, ReplayError
from vla_rl_ros.core.reward import TASK_TERM
from vla_rl_ros.core.verdict import judge_code

Float32Array = npt.NDArray[np.float32]
RowArray = npt.NDArray[np.void]
"""Rows as a structured array; `RowLayout.dtype` names the fields."""

TERMINATED, TRUNCATED, END, DEMO, CONTEXT = 1, 2, 4, 8, 16
"""Bits of the field ``flags``; a context row is never where a drawn transition begins."""


class Source(enum.IntEnum):
    """Who chose the executed action."""

    BASE = 0
    RESIDUAL = 1
    HUMAN = 2
    NOBODY = 3
    """The arm held, as nothing came in time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One tick.

    Attributes:
        obs: What was seen, float32, shape (O,); image features are part of it.
        base: What the frozen base wanted, normalised to [-1, 1], shape (A,).
        executed: What was executed, normalised, shape (A,); of a closing row without meaning.
        rewards: Reward terms earned by this tick's action, in the order of the layout.
        source: Who chose the executed action.
        judge: Who decided how the episode ended, see `core.verdict`; empty where nobody knows.
        episode: Number of the episode, unique within a replay.
        seed: What the episode's start was drawn from.
        tick: Counts from 0 within the episode; a gap means that rows were lost.
        stamp_ns: Time of the observation.
        is_terminated: The action ended the task: nothing is to be gained after it.
        is_truncated: The action was the last one for another reason: time, operator, fault.
        is_end: Closing row: holds only the observation after the last action, and its base action.
        is_demo: Shown by somebody who can do it.
    """

    obs: Float32Array
    base: Float32Array
    executed: Float32Array
    rewards: tuple[float, ...] = (0.0,)
    source: Source = Source.BASE
    judge: str = ""
    episode: int
    seed: int = 0
    tick: int
    stamp_ns: int = 0
    is_terminated: bool = False
    is_truncated: bool = False
    is_end: bool = False
    is_demo: bool = False


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """Widths and meaning of a row; two replays fit each other if their layouts are equal.

    Attributes:
        obs_dim: Width of an observation, O.
        action_dim: Channels of an action, A.
        reward_terms: Names of the reward terms. All are summed up to the reward except
            ``grasp_penalty``, which only the grasp critic gets.
        reward_version: Changes whenever a term is computed differently.
        obs_version: Changes whenever observations mean something else, e.g. the hash of the vision
            tower whose features they hold.
    """

    obs_dim: int
    action_dim: int
    reward_terms: tuple[str, ...] = (TASK_TERM,)
    reward_version: str = "1"
    obs_version: str = ""
    dtype: np.dtype[np.void] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check widths and lay the fields out."""
        if min(self.obs_dim, self.action_dim, len(self.reward_terms)) < 1:
            raise ConfigError("RowLayout: observation, action and reward need a channel or more")
        floats = 2 * self.action_dim + self.obs_dim + len(self.reward_terms)
        parts: list[tuple[Any, ...]] = [
            ("obs", "<f4", (self.obs_dim,)),
            ("base", "<f4", (self.action_dim,)),
            ("executed", "<f4", (self.action_dim,)),
            ("rewards", "<f4", (len(self.reward_terms),)),
            ("judge", "<u2"),
            # Keeps 64-bit fields of every row aligned in the file.
            ("pad", "u1", (4 * (floats % 2),)),
            ("source", "u1"),
            ("flags", "u1"),
            ("tick", "<i4"),
            ("episode", "<i8"),
            ("seed", "<i8"),
            ("stamp_ns", "<i8"),
        ]
        object.__setattr__(self, "dtype", np.dtype(parts))

    def pack(self, rows: Sequence[Row]) -> RowArray:
        """Turn rows into a structured array, shape (n,).

        Raises:
            ReplayError: Wrong width, not finite, or an action outside [-1, 1]; names the row.
        """
        packed = np.zeros(len(rows), self.dtype)
        for index, row in enumerate(rows):
            self._check(row)
            packed[index] = (
                row.obs,
                row.base,
                row.executed,
                row.rewards,
                judge_code(row.judge),
                0,
                row.source,
                _flags(row),
                row.tick,
                row.episode,
                row.seed,
                row.stamp_ns,
            )
        return packed

    def _check(self, row: Row) -> None:
        where = f"row of episode {row.episode}, tick {row.tick}"
        if len(row.rewards) != len(self.reward_terms):
            raise ReplayError(f"{where}: {len(row.rewards)} rewards, not {self.reward_terms}")
        for name, width in (
            ("obs", self.obs_dim),
            ("base", self.action_dim),
            ("executed", self.action_dim),
        ):
            values = getattr(row, name)
            if values.shape != (width,):
                raise ReplayError(f"{where}: {name} has shape {values.shape}, not ({width},)")
            if not np.isfinite(values).all():
                raise ReplayError(f"{where}: {name} is not finite")
            if name != "obs" and np.abs(values).max() > 1.0:
                raise ReplayError(f"{where}: {name}={values} is not within [-1, 1]")
        if not np.isfinite(row.rewards).all():
            raise ReplayError(f"{where}: rewards={row.rewards} are not finite")


def _flags(row: Row) -> int:
    return (
        TERMINATED * row.is_terminated
        | TRUNCATED * row.is_truncated
        | END * row.is_end
        | DEMO * row.is_demo
    )


def as_demonstration(rows: RowArray, *, only_human: bool = False) -> RowArray:
    """Copy rows and mark them as demonstrated, for the offline buffer.

    Args:
        rows: Whole episodes.
        only_human: Mark just the ticks a human chose, as HIL-SERL does (arXiv 2410.21845). The
            others remain as context: they are not drawn, but n-step sums and Monte-Carlo returns
            stay those of the whole episode.
    """
    marked = rows.copy()
    flags = rows["flags"] & ~np.uint8(DEMO | CONTEXT)
    chosen = rows["source"] == Source.HUMAN if only_human else np.ones(len(rows), dtype=bool)
    marked["flags"] = np.where(chosen, flags | DEMO, flags | CONTEXT)
    return marked
