# SPDX-License-Identifier: Apache-2.0
"""Asynchronous execution of chunks in lock-step: actor and inference side without messages.

For benches and learners that run a policy in a simulator tick by tick. One tick is

    step = session.on_tick()                      # None: nothing to play, the arm holds
    request = session.executed(action)            # what was done, SI; a Request when one is due
    ...
    verdict = session.deliver(request, actions)   # the answer, before a later on_tick

The observation that answers a request is the one of the tick it was made in: what was seen before
`action` was executed. A request made in tick n and delivered right after tick n + k is first used
at index k + 1, so the fastest policy has a delay of one tick. The nodes run the same classes.
"""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.chunking import Step, Verdict
from vla_rl_ros.core.delay import DelayEstimator
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.modes import AsyncSettings, PolicyTraits, lock_rows
from vla_rl_ros.core.plan import ChunkPlan
from vla_rl_ros.core.requests import ChunkRequests, Request
from vla_rl_ros.core.residual import clip_action
from vla_rl_ros.core.seams import SeamMetrics
from vla_rl_ros.core.spec import ACTION_DIM, ActionSpec
from vla_rl_ros.core.types import ActionChunk, FloatArray, Mode


class AsyncSession:
    """One arm, one policy, one mode.

    Attributes:
        metrics: Seams, underflows, late chunks, staleness.
        requests: The inference side, with the delay estimate.
        tick: Number of the present tick, -1 before the first.
    """

    def __init__(
        self,
        settings: AsyncSettings,
        traits: PolicyTraits,
        delay: DelayEstimator | None = None,
    ) -> None:
        """Start in epoch 1 with an empty plan.

        Args:
            settings: Mode and timing.
            traits: The policy: horizon, what it can do with a prefix.
            delay: Delay estimate to use; a fresh one otherwise.

        Raises:
            ConfigError: The settings do not fit the policy; names the field.
        """
        settings.check(traits)
        self._settings = settings
        self._traits = traits
        self._period_ns = settings.period_ns
        self._spec = ActionSpec(control_period_s=settings.control_period_s)
        self._plan = ChunkPlan(self._period_ns)
        self.requests = ChunkRequests(settings, traits, delay)
        self.metrics = SeamMetrics(self._spec)
        self.tick = -1
        self._step: Step | None = None
        self._epoch = 0
        self.reset()

    def reset(self) -> None:
        """Begin an episode: nothing is planned or promised; delays stay known.

        Answers to older requests are refused from now on. Ticks go on counting.
        """
        self._epoch += 1
        self._plan.reset(self._epoch)
        self.requests.reset(self._epoch)
        self.metrics.begin()
        self._step = None

    def first_request(self) -> Request:
        """Ask before the first tick, while the arm stands at its start, as the node does."""
        return self.requests.request((self.tick + 1) * self._period_ns)

    def on_tick(self) -> Step | None:
        """Begin the next tick.

        Returns:
            The element to play; None to hold.
        """
        self.tick += 1
        stamp_ns = self.tick * self._period_ns
        self._step = self._plan.play(stamp_ns)
        self.metrics.on_tick(stamp_ns, self._step)
        return self._step

    def executed(self, action: FloatArray, source: Source | None = None) -> Request | None:
        """End the tick with what was done.

        Args:
            action: Increment and gripper that were followed, SI, shape (7,): the element, or what
                a residual, an operator or a hold made of it.
            source: Who drove; by default the policy, or a hold where nothing was played.

        Returns:
            The request that is due, whose observation is this tick's.
        """
        step, zeros = self._step, np.zeros(ACTION_DIM)
        if source is None:
            source = Source.HOLD if step is None else Source.VLA
        is_hold = step is None or source is Source.HOLD
        row = ExecutedAction(
            stamp_ns=self.tick * self._period_ns,
            epoch=self._epoch,
            source=source,
            executed=np.array(action, dtype=np.float64),
            base=zeros if step is None or is_hold else step.action,
            residual=zeros,
            chunk_id=0 if step is None else step.chunk.chunk_id,
            chunk_step=NO_STEP if step is None or is_hold else step.index,
        )
        self._plan.on_executed(row)
        return self.requests.request(row.stamp_ns) if self.requests.on_tick(row) else None

    def deliver(self, request: Request, actions: FloatArray) -> Verdict:
        """Hand over the policy's answer after the present tick.

        Args:
            request: What it answers.
            actions: SI, shape (H, 7), as the policy gave them.

        Returns:
            `Verdict.ACCEPTED`, or why it was dropped.
        """
        verdict = self.requests.answered(request)
        if verdict is not Verdict.ACCEPTED:
            return verdict
        chunk = make_chunk(request, actions, self._settings, self._traits, self._spec)
        # After the tick of a request at the earliest; a first request comes before any tick.
        now_ns = max(self.tick * self._period_ns, request.stamp_ns)
        self.requests.published(chunk, now_ns)
        verdict = self._plan.offer(chunk, (self.tick + 1) * self._period_ns)
        self.metrics.late_chunks += verdict is Verdict.LATER_THAN_PROMISED
        if verdict is Verdict.ACCEPTED:
            self.metrics.on_seam(self._plan.seam)
        return verdict

    def failed(self, request: Request) -> None:
        """The policy gave no answer; the next tick asks again."""
        self.requests.answered(request)


def make_chunk(
    request: Request,
    actions: FloatArray,
    settings: AsyncSettings,
    traits: PolicyTraits,
    spec: ActionSpec,
) -> ActionChunk:
    """The chunk that goes to the actor: within range, cut in ``sync``, locked where promised.

    Clipped here, so that what is promised from it later is what the actor plays.
    """
    actions = clip_action(actions, spec)
    if settings.rules.is_waiting:
        actions = actions[: settings.ticks_per_request(traits)]
    if settings.rules.is_locked and request.prefix is not None:
        actions = lock_rows(actions, request.prefix)
    return ActionChunk(
        chunk_id=request.number,
        epoch=request.epoch,
        stamp_ns=request.stamp_ns,
        period_ns=settings.period_ns,
        delay_ticks=request.delay_ticks,
        actions=actions,
        mode=Mode(settings.mode),
    )
