# SPDX-License-Identifier: Apache-2.0
"""Actor, gate and inference node as events on one time line; messages take their time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from vla_rl_ros.core.async_plan import make_chunk
from vla_rl_ros.core.chunking import Step, Verdict
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.modes import AsyncSettings, PolicyTraits
from vla_rl_ros.core.plan import ChunkPlan
from vla_rl_ros.core.requests import ChunkRequests, Request
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.types import ActionChunk

SPEC = ActionSpec()


@dataclass
class World:
    """Gate, actor and inference node as events on one time line; stamps in nanoseconds.

    Attributes:
        latencies: Time of each inference in periods, used in turn.
        ways: Time of each message in periods, below 1 towards the actor.
        lost: Numbers of the chunks that never arrive.
        resets: Ticks before which a new epoch begins.
        human: Ticks that a human drives.
        mutes: Ticks whose proposal never reaches the gate.
    """

    latencies: list[float]
    ways: list[float]
    settings: AsyncSettings
    traits: PolicyTraits
    lost: set[int] = field(default_factory=set)
    resets: set[int] = field(default_factory=set)
    human: set[int] = field(default_factory=set)
    mutes: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.period_ns = self.settings.period_ns
        self.plan = ChunkPlan(self.period_ns)
        self.requests = ChunkRequests(self.settings, self.traits)
        self.log: dict[int, tuple[ExecutedAction, Step | None]] = {}
        self.verdicts: list[Verdict] = []
        self.epoch = 1
        self._rng = np.random.default_rng(0)
        self._events: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = itertools.count()
        self._latency = itertools.cycle(self.latencies)
        self._way = itertools.cycle(self.ways)
        self.plan.reset(1)
        self.requests.reset(1)

    def at(self, when_ns: int, what: Callable[[int], None]) -> None:
        heapq.heappush(self._events, (when_ns, next(self._order), what))

    def run(self, num_ticks: int) -> None:
        self.num_ticks = num_ticks
        self.ask(0, self.requests.request(0))
        for n in range(1, num_ticks + 1):
            self.at(n * self.period_ns, self.tick)
        while self._events:
            when_ns, _, what = heapq.heappop(self._events)
            what(when_ns)

    def way_ns(self) -> int:
        return int(next(self._way) * self.period_ns)

    def tick(self, now_ns: int) -> None:
        n = now_ns // self.period_ns
        if n in self.resets:
            self.epoch += 1
            self.plan.reset(self.epoch)
            epoch = self.epoch
            self.at(now_ns + self.way_ns(), lambda _: self.requests.reset(epoch))
        step = self.plan.play(now_ns)
        source = Source.HOLD if step is None or n in self.mutes else Source.VLA
        if n in self.human:
            source = Source.HUMAN
        is_hold = step is None or source is Source.HOLD
        row = ExecutedAction(
            stamp_ns=now_ns,
            epoch=self.epoch,
            source=source,
            executed=self._rng.uniform(-0.01, 0.01, 7),
            base=np.zeros(7) if is_hold else step.action,
            residual=np.zeros(7),
            chunk_id=0 if step is None else step.chunk.chunk_id,
            chunk_step=NO_STEP if is_hold else step.index,
        )
        self.log[n] = (row, step)
        self.at(now_ns + self.way_ns(), lambda _: self.plan.on_executed(row))
        self.at(now_ns + self.way_ns(), lambda when_ns: self.hear(when_ns, row))

    def hear(self, now_ns: int, row: ExecutedAction) -> None:
        if row.epoch == self.requests.epoch and self.requests.on_tick(row):
            self.ask(now_ns, self.requests.request(row.stamp_ns))

    def ask(self, now_ns: int, request: Request) -> None:
        took_ns = int(next(self._latency) * self.period_ns)
        self.at(now_ns + took_ns, lambda when_ns: self.answer(when_ns, request))

    def answer(self, now_ns: int, request: Request) -> None:
        verdict = self.requests.answered(request)
        if verdict is not Verdict.ACCEPTED:
            self.verdicts.append(verdict)
            return
        actions = self._rng.uniform(-0.02, 0.02, (self.traits.horizon, 7))
        chunk = make_chunk(request, actions, self.settings, self.traits, SPEC)
        self.requests.published(chunk, now_ns)
        if chunk.chunk_id not in self.lost:
            self.at(now_ns + self.way_ns(), lambda when_ns: self.arrive(when_ns, chunk))

    def arrive(self, now_ns: int, chunk: ActionChunk) -> None:
        self.verdicts.append(
            self.plan.offer(chunk, (now_ns // self.period_ns + 1) * self.period_ns)
        )

    def mismatches(self) -> list[str]:
        """Every executed policy element that continues something that did not happen."""
        found = []
        for n, (row, step) in self.log.items():
            if step is None or row.source is not Source.VLA:
                continue
            chunk = step.chunk
            if chunk.delay_ticks == 0 or step.index < chunk.delay_ticks:
                continue
            first = chunk.stamp_ns // self.period_ns
            if chunk.actions[0].tobytes() != self.log[first][0].executed.tobytes():
                found.append(f"tick {n}: row 0 of chunk {chunk.chunk_id}")
            for index in range(1, chunk.delay_ticks):
                done, _ = self.log[first + index]
                if done.source is Source.VLA:
                    is_kept = done.base.tobytes() == chunk.actions[index].tobytes()
                else:
                    is_kept = done.source is Source.HOLD and not chunk.actions[index][:6].any()
                if not is_kept:
                    found.append(f"tick {n}: row {index} of chunk {chunk.chunk_id}")
        return found

    def underflows(self) -> list[int]:
        """Ticks without an element after the very first one."""
        empty = [n for n, (_, step) in self.log.items() if step is None]
        started = min((n for n, (_, step) in self.log.items() if step is not None), default=0)
        return [n for n in empty if n > started]

    def played(self) -> int:
        return sum(step is not None for _, step in self.log.values())
