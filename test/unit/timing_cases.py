# SPDX-License-Identifier: Apache-2.0
"""Chunks, rows and policies for tests of the timing core."""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.modes import PolicyTraits
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.core.types import ActionChunk, FloatArray, Mode

P = 100_000_000
START = 1_700_000_000_000_000_000


def chunk(
    stamp_ns: int,
    *,
    epoch: int = 1,
    chunk_id: int = 1,
    horizon: int = 8,
    period_ns: int = P,
    delay_ticks: int = 1,
    mode: Mode = Mode.PREFIX_LOCK,
    mark: float = 0.0,
) -> ActionChunk:
    """A chunk whose first channel says which tick each element is for; `mark` is its second."""
    actions = np.zeros((horizon, 7))
    actions[:, 0] = (stamp_ns - START) / P + np.arange(horizon)
    actions[:, 1] = mark
    return ActionChunk(
        chunk_id=chunk_id,
        epoch=epoch,
        stamp_ns=stamp_ns,
        period_ns=period_ns,
        delay_ticks=delay_ticks,
        actions=actions,
        mode=mode,
    )


def row(
    tick_ns: int,
    *,
    chunk_id: int = 1,
    step: int = 0,
    source: Source = Source.VLA,
    base: FloatArray | None = None,
    executed: FloatArray | None = None,
    epoch: int = 1,
) -> ExecutedAction:
    """One executed tick; a hold has no step."""
    zeros = np.zeros(7)
    return ExecutedAction(
        stamp_ns=tick_ns,
        epoch=epoch,
        source=source,
        executed=zeros if executed is None else executed,
        base=zeros if base is None else base,
        residual=zeros,
        chunk_id=chunk_id,
        chunk_step=NO_STEP if source is Source.HOLD else step,
    )


def row_of(played: ActionChunk, tick_ns: int, step: int) -> ExecutedAction:
    """The row of a tick that played an element of a chunk."""
    base = played.actions[step]
    return row(tick_ns, chunk_id=played.chunk_id, step=step, base=base, executed=base)


def traits(horizon: int = 16, max_locked: int | None = None) -> PolicyTraits:
    """A policy that can do everything."""
    return PolicyTraits(
        horizon=horizon,
        conditionings=frozenset(Conditioning),
        max_locked=horizon if max_locked is None else max_locked,
    )
