# SPDX-License-Identifier: Apache-2.0
"""Rows of one episode from all that was seen and executed in it; called by `session_rows`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla_rl_ros.core.chunking import hold_action
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction
from vla_rl_ros.core.intervention import Source as Driver
from vla_rl_ros.core.reward import DONE, PAID, Reward
from vla_rl_ros.core.spec import GRIPPER_INDEX, ActionSpec
from vla_rl_ros.core.ticks import nearest_index
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning.rows import Float32Array, Row, Source

_NS_PER_S = 1_000_000_000
_SOURCES = {
    Driver.VLA: Source.BASE,
    Driver.HOLD: Source.NOBODY,
    Driver.RESIDUAL: Source.RESIDUAL,
    Driver.HUMAN: Source.HUMAN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """Rows and what was missing.

    Attributes:
        rows: Ticks in order and a closing row; empty where no tick is left.
        num_lost: Ticks without observation or without executed action.
        num_clock_steps: Times the grid of ticks began anew.
    """

    rows: tuple[Row, ...] = ()
    num_lost: int = 0
    num_clock_steps: int = 0


def assemble(
    actions: Sequence[ExecutedAction],
    observations: Mapping[int, Float32Array],
    *,
    spec: ActionSpec,
    reward: Reward,
    seed: int,
    is_success: bool,
    judge: str,
) -> Assembled:
    """Put an episode together.

    The reward is 1 in the last tick of an episode that succeeded, which is a terminated one; any
    other end truncates. Nobody has seen what the last action of a truncated episode did, as
    observation and base action stop with it: its tick becomes the closing row.

    Args:
        actions: What was executed, by stamp.
        observations: By stamp, shape (O,).
        spec: Range of actions, and the control period.
        reward: Judges the ticks, new for this episode.
        seed: Of the episode.
        is_success: Whether the task was done.
        judge: Who said so.
    """
    seen = [action.stamp_ns for action in actions if action.stamp_ns in observations]
    if not seen:
        return Assembled()
    # Before its first action the gate holds on a grid of its own, and nothing is lost.
    actions = [a for a in actions if a.stamp_ns >= seen[0] or a.source is not Driver.HOLD]
    ticks, num_lost, num_clock_steps = _ticks(seen, round(spec.control_period_s * _NS_PER_S))
    gripper = float(actions[0].executed[GRIPPER_INDEX])
    # What nobody saw any more is taken to look like the last that was seen.
    following = dict(zip(seen, [*seen[1:], seen[-1]], strict=True))
    rows: list[Row] = []
    for action in actions:
        base = _base(action, gripper)
        gripper = float(action.executed[GRIPPER_INDEX])
        if action.stamp_ns not in ticks:
            num_lost += not seen[0] <= action.stamp_ns <= seen[-1]
            continue
        is_done = is_success and action.stamp_ns == seen[-1]
        executed, obs = _normalised(action.executed, spec), observations[action.stamp_ns]
        next_obs = observations[following[action.stamp_ns]]
        judged = reward(obs, executed, next_obs, {PAID: float(is_done), DONE: float(is_done)})
        rows.append(
            Row(
                obs=obs,
                base=_normalised(base, spec),
                executed=executed,
                rewards=tuple(judged.terms.values()),
                source=_SOURCES[action.source],
                judge=judge,
                episode=action.epoch,
                seed=seed,
                tick=ticks[action.stamp_ns],
                stamp_ns=action.stamp_ns,
                is_terminated=is_done,
            )
        )
    return Assembled(rows=_closed(rows), num_lost=num_lost, num_clock_steps=num_clock_steps)


def _ticks(stamps: Sequence[int], period_ns: int) -> tuple[dict[int, int], int, int]:
    """Numbers of ticks by stamp, how many are missing, and how often the grid began anew.

    Where either is the case the numbers have a gap, which no n-step sum crosses.
    """
    numbers = {stamps[0]: 0}
    num_lost = num_clock_steps = 0
    for before_ns, stamp_ns in itertools.pairwise(stamps):
        steps = nearest_index(stamp_ns, before_ns, period_ns)
        if stamp_ns - before_ns == steps * period_ns:
            num_lost += steps - 1
        else:
            num_clock_steps += 1
            # However far the clock went: numbers of years would not fit a row.
            steps = 2
        numbers[stamp_ns] = numbers[before_ns] + steps
    return numbers, num_lost, num_clock_steps


def _base(action: ExecutedAction, gripper: float) -> FloatArray:
    """What the base wanted; where nobody proposed anything, to stay as it is.

    Args:
        action: Of the tick.
        gripper: Followed in the tick before.
    """
    if action.chunk_step != NO_STEP:
        return action.base
    is_human = action.source is Driver.HUMAN
    return hold_action(gripper if is_human else float(action.executed[GRIPPER_INDEX]))


def _normalised(action: FloatArray, spec: ActionSpec) -> Float32Array:
    # What a pushed arm repeats while holding may lie beyond the range of an action.
    return np.clip(spec.to_normalised(action), -1.0, 1.0).astype(np.float32)


def _closed(rows: Sequence[Row]) -> tuple[Row, ...]:
    """End an episode by a closing row; empty where no tick is left."""
    last = rows[-1]
    end = replace(
        last,
        executed=last.base,
        rewards=(0.0,) * len(last.rewards),
        is_terminated=False,
        is_end=True,
    )
    if last.is_terminated:
        # No bootstrap looks at what follows, so the last observation may stand for it.
        return (*rows, replace(end, tick=last.tick + 1))
    if len(rows) < 2:
        return ()
    before = rows[-2]
    # With a gap in between, nobody knows what came after the tick before.
    before = replace(before, is_truncated=before.tick + 1 == last.tick)
    return (*rows[:-2], before, end)
