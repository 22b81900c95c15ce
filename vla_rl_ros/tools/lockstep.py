# SPDX-License-Identifier: Apache-2.0
"""Runs a policy through the timing core tick by tick, with answers that come as late as wanted.

No clock and no thread: the same seed gives the same actions. One tick is what it is in the graph:
the plan's element passes the gate, the request that may be due sees the world as it was at this
tick, the arm moves for one period, and an answer whose time has come enters the plan.

A delay of d ticks means that element d of a chunk is the first one used. The graph's fastest
answer has d = 1. A delay of 0 is the ideal that no runtime reaches: an inference that takes no
time, so that every tick may use an observation of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla_rl_ros.core.async_plan import AsyncSession
from vla_rl_ros.core.chunking import Step
from vla_rl_ros.core.modes import AsyncSettings, PolicyTraits
from vla_rl_ros.core.prefix import Prefix
from vla_rl_ros.core.requests import Request
from vla_rl_ros.core.spec import GRIPPER_INDEX, ActionSpec
from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyObservation

MIN_EXECUTE_TICKS = 4
_SPEC = ActionSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedDelay:
    """How long answers take, in control periods: a base, jitter, and spikes.

    Attributes:
        base_periods: Shortest time.
        jitter_periods: Largest addition to it, uniformly drawn for every answer.
        spike_share: Share of the answers that take longer still.
        spike_periods: Largest addition by a spike, uniformly drawn.
        is_instant: Whether an answer takes no time at all, without jitter and spikes.
    """

    base_periods: float = 0.0
    jitter_periods: float = 0.0
    spike_share: float = 0.0
    spike_periods: float = 0.0
    is_instant: bool = False

    def draw(self, rng: np.random.Generator) -> int:
        """Delay of the next answer in ticks; uses up as many random numbers whatever comes out."""
        jitter, spike, size = (float(rng.uniform()) for _ in range(3))
        if self.is_instant:
            return 0
        periods = self.base_periods + self.jitter_periods * jitter
        if spike < self.spike_share:
            periods += self.spike_periods * size
        return max(1, math.ceil(periods))


def usual_delay(delay_ticks: int) -> InjectedDelay:
    """Delay of `delay_ticks` in three of four answers and one less in the fourth, with spikes.

    One answer in twenty takes up to four ticks longer. A delay of 0 never varies.
    """
    if delay_ticks == 0:
        return InjectedDelay(is_instant=True)
    return InjectedDelay(
        base_periods=delay_ticks - 1.25, jitter_periods=1.0, spike_share=0.05, spike_periods=4.0
    )


class World(Protocol):
    """What the actions act on. Time stands still between two calls of `advance`."""

    def observe(self, stamp_ns: int, last_action: FloatArray | None) -> PolicyObservation:
        """What is to be seen now."""

    def execute(self, step: Step | None, stamp_ns: int) -> FloatArray:
        """Tell the arm what to do in this tick, None to hold; returns what it was told, SI."""

    def advance(self) -> bool:
        """Let one period pass; whether the task is done."""


def execute_ticks(delay_ticks: int) -> int:
    """Ticks s from one request to the next, the same in every mode: ``max(4, d)``.

    Less than d would ask while the last answer is under way. The other bound, ``s <= H - d``, is
    checked by the timing core: beyond it a plan ends before the next answer comes.
    """
    return max(MIN_EXECUTE_TICKS, delay_ticks)


def make_session(
    mode: str, delay_ticks: int, policy: ChunkPolicy, control_period_s: float = 0.1
) -> AsyncSession:
    """The timing core for one mode, told the usual delay as its latency budget.

    Raises:
        ConfigError: The mode and this delay do not fit the policy; names the field.
    """
    traits = PolicyTraits(
        horizon=policy.horizon, conditionings=policy.conditionings, max_locked=policy.max_locked
    )
    settings = AsyncSettings(
        mode=mode,
        control_period_s=control_period_s,
        execute_ticks=execute_ticks(delay_ticks),
        latency_budget_s=delay_ticks * control_period_s,
    )
    return AsyncSession(settings, traits)


@dataclass(slots=True)
class _Answer:
    request: Request
    actions: FloatArray
    due_tick: int


class LockStep:
    """One policy in one world, for as many episodes as wanted.

    Attributes:
        session: The timing core, with its metrics.
        answer_steps: Distances of neighbouring elements in the policy's answers: what is smooth
            for this policy, whatever becomes of its chunks.
        handover_jumps: Distances between what was played and what the chunk before had for the
            same tick, at the first tick of every chunk that took over from another one.
    """

    def __init__(
        self, session: AsyncSession, policy: ChunkPolicy, world: World, period_ns: int
    ) -> None:
        """Put the parts together.

        Args:
            session: The timing core.
            policy: Asked at once; its answer is kept back.
            world: What the actions act on.
            period_ns: Control period.
        """
        self.session = session
        self._policy = policy
        self._world = world
        self._period_ns = period_ns
        self._answer: _Answer | None = None
        self._executed: FloatArray | None = None
        self.answer_steps: list[float] = []
        self.handover_jumps: list[float] = []

    def run(self, delay: InjectedDelay, rng: np.random.Generator, num_ticks: int) -> bool:
        """Run one episode; the world has been reset by the caller.

        The arm stands while the first chunk is computed, so that one costs no tick.

        Args:
            delay: How late answers come.
            rng: Source of the delays; draw n belongs to request n in every mode.
            num_ticks: Time limit.

        Returns:
            Whether the task was done in time.
        """
        session = self.session
        session.reset()
        self._policy.reset()
        self._answer = self._executed = None
        self._ask_at_rest()
        before: Step | None = None
        for _ in range(num_ticks):
            step = session.on_tick()
            self._note_handover(before, step)
            before = step
            stamp_ns = session.tick * self._period_ns
            self._executed = self._world.execute(step, stamp_ns)
            request = session.executed(self._executed)
            delay_ticks = None if request is None else delay.draw(rng)
            if request is not None and delay_ticks:
                actions = self._ask(request.stamp_ns, request.prefix)
                self._answer = _Answer(request, actions, session.tick + delay_ticks - 1)
            if self._world.advance():
                return True
            if request is not None and delay_ticks == 0:
                session.deliver(request, self._infer_ahead(request))
            elif delay.is_instant and self._stands_next(step):
                self._ask_at_rest()
            self._deliver_due()
        return False

    def _deliver_due(self) -> None:
        answer = self._answer
        if answer is not None and self.session.tick >= answer.due_tick:
            self._answer = None
            self.session.deliver(answer.request, answer.actions)

    def _ask_at_rest(self) -> None:
        """Ask and answer between two ticks; what comes is played from its element 0 on."""
        request = self.session.first_request()
        self.session.deliver(request, self._ask(request.stamp_ns, request.prefix))

    def _stands_next(self, step: Step | None) -> bool:
        """Whether the plan of mode ``sync`` has just ended; the others ask in time."""
        is_waiting = self.session.requests.settings.rules.is_waiting
        return is_waiting and step is not None and step.index == step.chunk.horizon - 1

    def _note_handover(self, before: Step | None, step: Step | None) -> None:
        if before is None or step is None or before.chunk.chunk_id == step.chunk.chunk_id:
            return
        index = before.index + 1
        if index < before.chunk.horizon:
            pair = np.stack([before.chunk.actions[index], step.action])
            self.handover_jumps += motion_steps(pair).tolist()

    def _ask(self, stamp_ns: int, prefix: Prefix | None) -> FloatArray:
        observation = self._world.observe(stamp_ns, self._executed)
        actions = self._policy.infer(observation, prefix)
        self.answer_steps += motion_steps(actions).tolist()
        return actions

    def _infer_ahead(self, request: Request) -> FloatArray:
        """Answer with an observation of the coming tick, whose own action comes from it, too.

        The timing core counts elements from the tick of the request, so what was executed there
        stands in front.
        """
        actions = self._ask(request.stamp_ns + self._period_ns, _one_tick_later(request.prefix))
        if request.delay_ticks == 0:
            return actions
        assert self._executed is not None
        return np.concatenate([self._executed[None], actions[:-1]])


def motion_steps(actions: FloatArray) -> FloatArray:
    """Distances of neighbouring rows (n, 7) over the six motion channels, shape (n - 1,).

    In the policy's own units, where 1 is the range of a channel. The gripper is meant to jump.
    """
    motion = _SPEC.to_normalised(actions)[:, :GRIPPER_INDEX]
    steps: FloatArray = np.linalg.norm(np.diff(motion, axis=0), axis=1)
    return steps


def _one_tick_later(prefix: Prefix | None) -> Prefix | None:
    """What is promised from the next tick on, None when nothing is."""
    if prefix is None or len(prefix.actions) < 2:
        return None
    return Prefix(
        actions=prefix.actions[1:],
        num_locked=max(0, prefix.num_locked - 1),
        conditioning=prefix.conditioning,
    )
