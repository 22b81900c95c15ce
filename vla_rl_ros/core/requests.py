# SPDX-License-Identifier: Apache-2.0
"""When to ask the policy for the next chunk, and what the answer is conditioned on.

Follows the executed ticks: what is promised while the model thinks, how long answers really take
in consumed ticks, whether one is under way, and whether one that was published has been taken.
With ``d <= s`` that is known before the next request is due. Called by the inference node; stamps
come from the ticks, there is no clock in here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.chunking import PlacedChunk, Verdict, hold_action, is_as_promised
from vla_rl_ros.core.delay import DelayEstimator
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.modes import AsyncSettings, PolicyTraits
from vla_rl_ros.core.plan_mirror import Fate, PlanMirror
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.spec import GRIPPER_INDEX
from vla_rl_ros.core.ticks import nearest_index
from vla_rl_ros.core.types import ActionChunk, FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """One question to the policy.

    Attributes:
        number: Counts up per process; becomes the chunk's id.
        epoch: Episode epoch.
        stamp_ns: Tick of the observation and of element 0.
        delay_ticks: Delay it is conditioned for, 0 when nothing is promised.
        prefix: What is promised; None when nothing is, or the mode conditions on nothing. With
            `Conditioning.NONE` the runtime locks the rows and the model knows nothing of it; the
            policy gets it all the same, to turn poses into increments from where they lead to.
        is_first: Whether the policy has to forget the last episode first.
    """

    number: int
    epoch: int
    stamp_ns: int
    delay_ticks: int
    prefix: Prefix | None
    is_first: bool


class ChunkRequests:
    """Decides at each executed tick whether the next inference starts now.

    Attributes:
        settings: How chunks are executed; `execute_ticks` may be replaced while running.
        delay: Delay in consumed ticks.
        last_row: The newest executed tick of this epoch.
        num_late: Chunks that came later than they were conditioned for.
        late_in_a_row: How many of the newest did.
        num_conditioned: Chunks whose delay was estimated and then measured.
        num_hits: Those of them within one tick of the estimate.
    """

    def __init__(
        self,
        settings: AsyncSettings,
        traits: PolicyTraits,
        delay: DelayEstimator | None = None,
        *,
        is_shadow: bool = False,
    ) -> None:
        """Start in epoch 0 with nothing requested.

        Args:
            settings: How chunks are executed; checked by the caller.
            traits: The policy.
            delay: Delay estimate to use.
            is_shadow: Whether to go on asking while a human drives, to compare him with the
                policy.
        """
        self.settings = settings
        self.delay = delay or DelayEstimator(expected=settings.budget_ticks)
        self.num_late = self.late_in_a_row = self.num_conditioned = self.num_hits = 0
        self._traits = traits
        self._is_shadow = is_shadow
        self._period_ns = settings.period_ns
        self._mirror = PlanMirror(settings)
        self._num_sent = 0
        self._asked_estimate = self._published_estimate = 1
        self.reset(0)

    @property
    def epoch(self) -> int:
        """The epoch whose ticks count."""
        return self._epoch

    @property
    def is_pending(self) -> bool:
        """Whether the newest request has no answer yet."""
        return self._pending is not None

    def reset(self, epoch: int) -> None:
        """Begin a new epoch: nothing is promised, nothing is pending; delays stay known."""
        self._epoch = epoch
        self._forget()
        self._is_first = True
        self.last_row: ExecutedAction | None = None

    def _forget(self) -> None:
        self._mirror.drop()
        self._pending: Request | None = None
        self._requested_ns: int | None = None
        self._human_ns: int | None = None
        self._is_broken = False
        self._must_ask = False

    def on_tick(self, row: ExecutedAction) -> bool:
        """Note an executed tick of this epoch.

        Returns:
            Whether to request a chunk observed at this tick.
        """
        if self.last_row and self.last_row.stamp_ns - row.stamp_ns > self._period_ns:
            # The clock was set back, and the actor's plan is void: what is known of it would come
            # true in a future that lies as far away.
            self._forget()
        self.last_row = row
        if row.source is Source.HUMAN and not self._is_shadow:
            # Nothing that was planned before comes true any more, and nothing is committed.
            self._human_ns = row.stamp_ns
            self._mirror.drop()
            return False
        fate = self._mirror.follow(row)
        if fate is not None:
            self._learn(fate)
        self._is_broken = self._is_broken or self._breaks_promise(row)
        return self._is_due(row)

    def request(self, stamp_ns: int) -> Request:
        """Make and note the request for a chunk observed at `stamp_ns`.

        Stamps other than that of the newest row are asked out of turn, before an episode runs or
        because no rows come; then nothing is promised.
        """
        row = self.last_row
        delay_ticks, prefix = 0, None
        if row is not None and row.stamp_ns == stamp_ns:
            delay_ticks, prefix = self._promise(row)
        self._num_sent += 1
        self._pending = Request(
            number=self._num_sent,
            epoch=self._epoch,
            stamp_ns=stamp_ns,
            delay_ticks=delay_ticks,
            prefix=prefix,
            is_first=self._is_first,
        )
        self._requested_ns = stamp_ns
        self._asked_estimate = self.delay.estimate()
        self._is_first = self._is_broken = self._must_ask = False
        return self._pending

    def answered(self, request: Request) -> Verdict:
        """Note that a request has its answer or has failed.

        Returns:
            `Verdict.ACCEPTED` when an answer may be published, or why it is worth nothing.
        """
        is_newest = self._pending is not None and request.number == self._pending.number
        if not is_newest or request.epoch != self._epoch:
            return Verdict.OTHER_EPOCH
        self._pending, self._must_ask = None, True
        if self._human_ns is not None and request.stamp_ns <= self._human_ns:
            return Verdict.BEFORE_TAKEOVER
        if self._is_broken:
            return Verdict.BROKEN_PROMISE
        is_free = request.delay_ticks == 0
        if is_free and self.settings.rules.is_locked and self._mirror.active is not None:
            # Asked before the start, and a chunk that was there already is being played.
            return Verdict.LATER_THAN_PROMISED
        return Verdict.ACCEPTED

    def published(self, chunk: ActionChunk, now_ns: int) -> None:
        """Note that the actor gets `chunk` at about `now_ns`."""
        self._mirror.published(chunk, now_ns)
        self._published_estimate = self._asked_estimate
        self._must_ask = False

    def _learn(self, fate: Fate) -> None:
        self._must_ask = self._must_ask or not fate.is_played
        self.num_late += fate.is_late
        self.late_in_a_row = self.late_in_a_row + 1 if fate.is_late else 0
        self.delay.add(fate.latency_ticks, is_late=fate.is_late)
        if fate.chunk.delay_ticks:
            self.num_conditioned += 1
            self.num_hits += abs(fate.measured - self._published_estimate) <= 1

    def _breaks_promise(self, row: ExecutedAction) -> bool:
        pending = self._pending
        if pending is None or pending.prefix is None or not self.settings.rules.is_locked:
            return False
        index = nearest_index(row.stamp_ns, pending.stamp_ns, self._period_ns)
        if not 1 <= index < pending.prefix.num_locked:
            return False
        happened = None if row.chunk_step == NO_STEP else row.base
        return not is_as_promised(pending.prefix.actions[index], happened)

    def _is_due(self, row: ExecutedAction) -> bool:
        if self.is_pending or self._mirror.is_waiting:
            return False
        active = self._mirror.active
        if active is None:
            # Standing still, or a plan that is not ours: a chunk for when it has ended.
            return True
        if self.settings.rules.is_waiting:
            return False
        if self._must_ask or self._requested_ns is None:
            return True
        since_ns = max(self._requested_ns, active.origin_ns)
        consumed = nearest_index(row.stamp_ns, since_ns, self._period_ns)
        reserve = self._delay_for(active, row.stamp_ns) + self.settings.margin_ticks
        # Far in the future: the clock was set back, and waiting for it would starve the arm.
        return (
            consumed >= self.settings.ticks_per_request(self._traits)
            or active.remaining(row.stamp_ns) <= reserve
            or consumed < -1
        )

    def _delay_for(self, active: PlacedChunk, stamp_ns: int) -> int:
        delay_ticks = self.delay.careful(active.remaining(stamp_ns))
        return min(max(1, delay_ticks), self.settings.max_delay(self._traits))

    def _promise(self, row: ExecutedAction) -> tuple[int, Prefix | None]:
        """Delay and prefix of a request; the first row is what was executed in its own tick.

        With residual and operator, because the arm moved by it; the following rows can only be
        the base actions of the plan, and a hold where the plan ends before the delay does.
        """
        active, rules = self._mirror.active, self.settings.rules
        if active is None or rules.is_waiting:
            return 0, None
        delay_ticks = self._delay_for(active, row.stamp_ns)
        if not rules.is_locked and rules.conditioning is Conditioning.NONE:
            return delay_ticks, None
        is_guided = rules.conditioning is Conditioning.GUIDE
        num_rows = self._traits.horizon if is_guided else delay_ticks
        planned = active.rows(row.stamp_ns, num_rows)[1:]
        prefix = Prefix(
            actions=_padded(np.concatenate([row.executed[None], planned]), delay_ticks),
            num_locked=delay_ticks,
            conditioning=self.settings.conditioning(self._traits),
        )
        return delay_ticks, prefix


def _padded(rows: FloatArray, num_rows: int) -> FloatArray:
    """Rows with holds appended up to `num_rows`; the gripper stays as it was told last."""
    if len(rows) >= num_rows:
        return rows
    hold = hold_action(float(rows[-1, GRIPPER_INDEX]))
    return np.concatenate([rows, np.repeat(hold[None], num_rows - len(rows), axis=0)])
