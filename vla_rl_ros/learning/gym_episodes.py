# SPDX-License-Identifier: Apache-2.0
"""Plays episodes: base and residual, tick by tick, with or without recording.

Called by `gym_loop` to train and by `vla-rl-ros eval` to measure.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_rl_ros.core.proportions import wilson_interval
from vla_rl_ros.core.reward import DONE, PAID, Reward
from vla_rl_ros.core.verdict import ENVIRONMENT
from vla_rl_ros.learning.acting import execute
from vla_rl_ros.learning.gym_door import Door, Moment, Outcome
from vla_rl_ros.learning.rows import Float32Array, Row, Source

Actor = Callable[[Float32Array, Float32Array], Float32Array]
"""Residual (A,) for an observation (O,) and a base action (A,), normalised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """How an episode went.

    Attributes:
        seed: What identifies its start.
        start_hash: Of the first observation; paired episodes have equal ones.
        is_success: Whether the task was done.
        ticks: How many there were.
        total: Sum of rewards.
    """

    seed: int
    start_hash: int
    is_success: bool
    ticks: int
    total: float


class Recorder:
    """Makes rows of one episode and hands each on as soon as it is complete."""

    def __init__(
        self,
        store: Callable[[Row], object],
        number: int,
        reward: Reward,
    ) -> None:
        """Begin an episode.

        Args:
            store: Takes the rows; the closing one comes last.
            number: Of the episode.
            reward: Judges the ticks, new for this episode.
        """
        self._store, self._number, self._reward = store, number, reward

    def tick(
        self,
        moment: Moment,
        executed: Float32Array,
        outcome: Outcome,
        following: Moment,
        *,
        source: Source,
        seed: int,
        tick: int,
    ) -> None:
        """Note a tick."""
        info = {PAID: outcome.reward, DONE: float(outcome.is_terminated)}
        judged = self._reward(moment.obs, executed, following.obs, info)
        self._store(
            Row(
                obs=moment.obs,
                base=moment.base,
                executed=executed,
                rewards=tuple(judged.terms.values()),
                source=source,
                judge=ENVIRONMENT,
                episode=self._number,
                seed=seed,
                tick=tick,
                is_terminated=outcome.is_terminated,
                is_truncated=outcome.is_truncated and not outcome.is_terminated,
            )
        )

    def close(self, moment: Moment, *, seed: int, tick: int) -> None:
        """Note what is seen after the last tick."""
        self._store(
            Row(
                obs=moment.obs,
                base=moment.base,
                executed=moment.base,
                rewards=(0.0,) * len(self._reward.names),
                judge=ENVIRONMENT,
                episode=self._number,
                seed=seed,
                tick=tick,
                is_end=True,
            )
        )


def play(
    door: Door,
    actor: Actor | None,
    start: int,
    *,
    held_out: bool,
    base_ticks: int = 0,
    recorder: Recorder | None = None,
    after_tick: Callable[[], object] | None = None,
) -> Episode:
    """Run one episode to its end.

    Args:
        door: Environment and base.
        actor: What adds to the base, None for the base alone.
        start: Number of the start.
        held_out: Whether it is one of evaluation.
        base_ticks: Ticks the base plays alone first; they set the scene and are not recorded
            (probing; PLD, arXiv 2511.00091).
        recorder: Gets every tick and the end.
        after_tick: Called after each tick, e.g. to learn.
    """
    moment, seed = door.start(start, held_out=held_out)
    start_hash = zlib.crc32(moment.obs.tobytes())
    tick, total, is_last = 0, 0.0, False
    while not is_last:
        active = actor if tick >= base_ticks else None
        executed = moment.base
        if active is not None:
            executed = np.asarray(execute(moment.base, active(moment.obs, moment.base)))
        following, outcome = door.step(moment, executed)
        is_last = outcome.is_terminated or outcome.is_truncated
        if recorder is not None and tick >= base_ticks:
            source = Source.BASE if active is None else Source.RESIDUAL
            recorder.tick(
                moment, executed, outcome, following, source=source, seed=seed, tick=tick
            )
            if is_last:
                recorder.close(following, seed=seed, tick=tick + 1)
        moment, tick, total = following, tick + 1, total + outcome.reward
        if after_tick is not None:
            after_tick()
    return Episode(
        seed=seed,
        start_hash=start_hash,
        is_success=outcome.is_success,
        ticks=tick,
        total=total,
    )


def evaluate(door: Door, actor: Actor | None, starts: Iterable[int]) -> list[Episode]:
    """Play held-out starts; equal numbers are equal starts for every actor.

    Args:
        door: Environment and base.
        actor: What adds to the base, None for the base alone.
        starts: Numbers of held-out starts.
    """
    return [play(door, actor, start, held_out=True) for start in starts]


def summary(episodes: Sequence[Episode]) -> dict[str, float]:
    """Success rate with its 95 % interval, number of episodes, and their mean length."""
    successes = sum(episode.is_success for episode in episodes)
    low, high = wilson_interval(successes, len(episodes))
    return {
        "success": successes / len(episodes),
        "wilson_low": round(low, 4),
        "wilson_high": round(high, 4),
        "episodes": len(episodes),
        "mean_steps": round(float(np.mean([episode.ticks for episode in episodes])), 2),
    }


def paired_difference(ours: Sequence[Episode], base: Sequence[Episode]) -> dict[str, Any]:
    """Starts won and lost against the base, and whether they were the same starts at all."""
    pairs = list(zip(ours, base, strict=True))
    return {
        "won": sum(mine.is_success and not theirs.is_success for mine, theirs in pairs),
        "lost": sum(theirs.is_success and not mine.is_success for mine, theirs in pairs),
        "is_paired": all(
            (mine.seed, mine.start_hash) == (theirs.seed, theirs.start_hash)
            for mine, theirs in pairs
        ),
    }
