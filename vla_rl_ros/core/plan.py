# SPDX-License-Identifier: Apache-2.0
"""The plan of the actor: what is played at a control tick, and which chunks may join.

An element is played in its own tick or never. The one exception is a chunk that was asked for
while the arm stood still; it starts with element 0 when it is first played, because nothing has
been executed since its observation. A chunk that repeats a promise is believed only after the plan
has looked up that the promise was kept, so whatever the inference side thought, no chunk continues
something that did not happen. Called by the actor with chunks, ticks and executed rows; there is
no clock in here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np

from vla_rl_ros.core.chunking import PlacedChunk, Seam, Step, Verdict, is_as_promised
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.modes import RULES, Merge, ModeRules, ensemble_mean, weighted_mean
from vla_rl_ros.core.ticks import nearest_index
from vla_rl_ros.core.types import ActionChunk, FloatArray

_HISTORY_TICKS = 512


class ChunkPlan:
    """What is played, of the present epoch."""

    def __init__(self, period_ns: int, *, is_shadow: bool = False) -> None:
        """Start empty in epoch 0.

        Args:
            period_ns: Control period; chunks of another period are refused.
            is_shadow: Whether the plan goes on while a human drives, to be compared with him.

        Raises:
            ConfigError: If the period is not positive.
        """
        if period_ns <= 0:
            raise ConfigError(f"period_ns={period_ns} must be positive")
        self._period_ns = period_ns
        self._is_shadow = is_shadow
        self.reset(0)

    @property
    def epoch(self) -> int:
        """The epoch whose chunks are accepted."""
        return self._epoch

    def reset(self, epoch: int) -> None:
        """Forget everything and accept only chunks of `epoch` from now on."""
        self._epoch = epoch
        self._placed: list[PlacedChunk] = []
        self._replaced: PlacedChunk | None = None
        self._waiting: ActionChunk | None = None
        self._newest_ns: int | None = None
        self._human_ns: int | None = None
        self._tick_ns: int | None = None
        self._played: OrderedDict[int, FloatArray | None] = OrderedDict()
        self._last_ns: int | None = None
        self.seam: Seam | None = None
        """The seam of the chunk accepted last, None when it starts from rest."""

    def offer(self, chunk: ActionChunk, next_tick_ns: int) -> Verdict:
        """Take a chunk into the plan if it may be played.

        Chunks are ordered by the stamp of their observation, not by id: ids start again with the
        policy's process, which may be restarted while an episode runs.

        Args:
            chunk: The new chunk.
            next_tick_ns: Stamp of the next tick to be played.

        Returns:
            `Verdict.ACCEPTED`, or why it was dropped.
        """
        rules = RULES[chunk.mode]
        verdict = self._judge_origin(chunk)
        if verdict is None:
            starts_at_rest = self._starts_at_rest(chunk, rules, next_tick_ns)
            verdict = self._judge_time(chunk, rules, next_tick_ns, starts_at_rest=starts_at_rest)
        if verdict is not None:
            return verdict
        self._newest_ns = chunk.stamp_ns
        if starts_at_rest:
            self._placed, self._waiting, self.seam = [], chunk, None
            self._replaced = None
        else:
            self._splice(chunk, rules, next_tick_ns)
        return Verdict.ACCEPTED

    def play(self, tick_ns: int) -> Step | None:
        """The element that belongs to a tick, None when there is none (underflow)."""
        self._follow_clock(tick_ns)
        chunk = self._waiting
        if chunk is not None:
            self._waiting = None
            if self._age(chunk, tick_ns) <= 2 * chunk.horizon:
                self._placed = [PlacedChunk(chunk, tick_ns)]
        steps = [step for placed in self._placed if (step := placed.step(tick_ns)) is not None]
        if not steps:
            self.hold(tick_ns)
            return None
        newest = steps[-1]
        if newest.index > newest.chunk.delay_ticks:
            # The row of its last repeated tick has come: nothing can break its promise any more.
            self._replaced = None
        if len(steps) > 1:
            newest = replace(newest, action=ensemble_mean(np.array([s.action for s in steps])))
        self._remember(tick_ns, newest.action)
        self._last_ns = tick_ns
        return newest

    def hold(self, tick_ns: int) -> None:
        """Note that nothing is played at a tick although there may be an element for it."""
        self._follow_clock(tick_ns)
        self._remember(tick_ns, None)

    def on_executed(self, row: ExecutedAction) -> Verdict | None:
        """Learn what really happened at a tick.

        Returns:
            None while the plan stands. `Verdict.BEFORE_TAKEOVER`: it was dropped because a human
            drives, and chunks observed before are refused from now on. `Verdict.BROKEN_PROMISE`:
            a tick that the newest chunk repeats was held instead, and the plan it had replaced
            goes on.
        """
        if row.epoch != self._epoch:
            return None
        if row.source is Source.HUMAN and not self._is_shadow:
            had_plan = bool(self._placed or self._waiting)
            self._placed, self._waiting, self._replaced = [], None, None
            self._human_ns = row.stamp_ns
            return Verdict.BEFORE_TAKEOVER if had_plan else None
        if row.chunk_step != NO_STEP or row.source is Source.HUMAN:
            return None
        if row.stamp_ns in self._played:
            self._played[row.stamp_ns] = None
        return self._revert(row.stamp_ns)

    def _revert(self, held_ns: int) -> Verdict | None:
        """Go back to the replaced plan if the newest chunk repeats a tick that was held.

        The replaced chunk may repeat that tick as well; then nothing is left that is true.
        """
        if self._replaced is None or not _is_broken(self._placed[-1], held_ns):
            return None
        is_whole = not _is_broken(self._replaced, held_ns)
        self._placed = [self._replaced] if is_whole else []
        self._replaced = None
        return Verdict.BROKEN_PROMISE

    def remaining(self, tick_ns: int) -> int:
        """Number of elements for `tick_ns` and later ticks."""
        if self._waiting is not None:
            return self._waiting.horizon
        return max((placed.remaining(tick_ns) for placed in self._placed), default=0)

    def _follow_clock(self, tick_ns: int) -> None:
        """Begin anew where the clock was set back, or every chunk would be older for as long."""
        human_ns = self._human_ns
        # Before the first tick a chunk tells the time: it is never of after the next tick.
        known_ns = [t for t in (self._tick_ns, self._newest_ns) if t is not None]
        if known_ns and max(known_ns) - tick_ns > self._period_ns:
            self.reset(self._epoch)
            # By the new clock already: a row may be heard before the tick.
            if human_ns is not None and human_ns <= tick_ns:
                self._human_ns = human_ns
        self._tick_ns = tick_ns

    def _judge_origin(self, chunk: ActionChunk) -> Verdict | None:
        if chunk.epoch != self._epoch:
            return Verdict.OTHER_EPOCH
        if chunk.period_ns != self._period_ns:
            return Verdict.BAD_PERIOD
        if self._human_ns is not None and chunk.stamp_ns <= self._human_ns:
            return Verdict.BEFORE_TAKEOVER
        if self._newest_ns is not None and chunk.stamp_ns <= self._newest_ns:
            return Verdict.OLDER
        return None

    def _starts_at_rest(self, chunk: ActionChunk, rules: ModeRules, next_tick_ns: int) -> bool:
        """Whether nothing was promised, and nothing was played since the observation."""
        is_at_rest = self._last_ns is None or self._last_ns < chunk.stamp_ns
        is_free = chunk.delay_ticks == 0 or rules.is_waiting
        has_elements = self._waiting is None and self.remaining(next_tick_ns) > 0
        return is_free and is_at_rest and not has_elements

    def _judge_time(
        self, chunk: ActionChunk, rules: ModeRules, next_tick_ns: int, *, starts_at_rest: bool
    ) -> Verdict | None:
        index = self._age(chunk, next_tick_ns)
        if index < 0:
            return Verdict.FROM_FUTURE
        # At rest the world waits for the arm; still, what was seen long ago is worth nothing.
        if index >= (2 * chunk.horizon if starts_at_rest else chunk.horizon):
            return Verdict.TOO_LATE
        if starts_at_rest or not rules.is_locked:
            return None
        if index > chunk.delay_ticks:
            return Verdict.LATER_THAN_PROMISED
        if not self._kept_promise(chunk, next_tick_ns):
            return Verdict.BROKEN_PROMISE
        return None

    def _kept_promise(self, chunk: ActionChunk, next_tick_ns: int) -> bool:
        """Whether the locked rows behind the first were played, or are going to be."""
        for index in range(1, min(chunk.delay_ticks, chunk.horizon)):
            tick_ns = chunk.stamp_ns + index * self._period_ns
            if tick_ns >= next_tick_ns:
                step = next((s for p in self._placed if (s := p.step(tick_ns))), None)
                happened = None if step is None else step.action
            elif tick_ns in self._played:
                happened = self._played[tick_ns]
            else:
                return False
            if not is_as_promised(chunk.actions[index], happened):
                return False
        return True

    def _splice(self, chunk: ActionChunk, rules: ModeRules, next_tick_ns: int) -> None:
        new = PlacedChunk(chunk, chunk.stamp_ns)
        first = self._age(chunk, next_tick_ns)
        if rules.is_locked:
            first = min(max(first, chunk.delay_ticks), chunk.horizon - 1)
        seam_ns = chunk.stamp_ns + first * self._period_ns
        old = next((s.action for p in self._placed if (s := p.step(seam_ns))), None)
        if rules.merge is Merge.WEIGHTED and self._placed:
            new = PlacedChunk(_blend(self._placed[-1], chunk, next_tick_ns), chunk.stamp_ns)
        keeps_old = rules.merge is Merge.ENSEMBLE
        kept = [p for p in self._placed if keeps_old and p.remaining(next_tick_ns)]
        self._replaced = self._placed[-1] if rules.is_locked and self._placed else None
        self._placed, self._waiting = [*kept, new], None
        votes = [s.action for p in self._placed if (s := p.step(seam_ns)) is not None]
        self.seam = Seam(seam_ns, old, ensemble_mean(np.array(votes)) if kept else votes[-1])

    def _remember(self, tick_ns: int, action: FloatArray | None) -> None:
        self._played[tick_ns] = action
        if len(self._played) > _HISTORY_TICKS:
            self._played.popitem(last=False)

    def _age(self, chunk: ActionChunk, tick_ns: int) -> int:
        return nearest_index(tick_ns, chunk.stamp_ns, self._period_ns)


def _is_broken(placed: PlacedChunk, held_ns: int) -> bool:
    """Whether a chunk repeats something else than a hold at a tick that was held."""
    chunk, index = placed.chunk, placed.index(held_ns)
    is_repeated = 1 <= index < min(chunk.delay_ticks, chunk.horizon)
    return is_repeated and not is_as_promised(chunk.actions[index], None)


def _blend(old: PlacedChunk, chunk: ActionChunk, next_tick_ns: int) -> ActionChunk:
    """The new chunk with its elements averaged with the old plan's where both have one."""
    start = nearest_index(next_tick_ns, chunk.stamp_ns, chunk.period_ns)
    shared = old.rows(next_tick_ns, chunk.horizon - start)
    actions = chunk.actions.copy()
    end = start + len(shared)
    actions[start:end] = weighted_mean(shared, actions[start:end])
    return replace(chunk, actions=actions)
