# SPDX-License-Identifier: Apache-2.0
"""What a chunk policy can do in the fast simulator, with the timing of the graph.

With a delay of d ticks the chunk asked for at tick t arrives at t + d, its first d rows promised
in advance, and its row i is executed at tick t + i until the next chunk arrives. Only one request
is under way at a time. Until the first answer the arm holds; nothing was executed meanwhile, so
that one is played from its first row, as by `core.plan`. Called by `vla-rl-ros eval base`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vla_rl_ros.core.chunking import hold_action
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.spec import ACTION_DIM
from vla_rl_ros.core.types import FloatArray, ImageArray
from vla_rl_ros.policies.protocol import ChunkPolicy, PolicyObservation
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.tasks import TASKS, Task, is_success

_OBJECTS = {Task.LIFT: "cube", Task.BUTTON: "button", Task.PEG: "hole"}
# Objects are 12 cm apart or more: an arm on its way to one is never this near to another.
_NEAR_M = 0.04
_LOW_M = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseEpisode:
    """How one episode went.

    Attributes:
        scene: Task whose layout was drawn.
        told: Task the policy was told to do.
        seed: Of the layout.
        is_success: Whether the told task was solved in time.
        did_other: Whether the scene's task was solved although another one was told.
        went_wrong: Whether the hand came down at another object.
        ticks: Control ticks it took.
        inference_ms: Median time of one inference.
        slowest_ms: Longest one.
    """

    scene: str
    told: str
    seed: int
    is_success: bool
    did_other: bool
    went_wrong: bool
    ticks: int
    inference_ms: float
    slowest_ms: float


class DelayedExecutor:
    """Executes chunks that arrive a fixed number of ticks after they were asked for."""

    def __init__(self, policy: ChunkPolicy, delay_ticks: int) -> None:
        """Begin an episode.

        Args:
            policy: Asked once per `delay_ticks`, at every tick for 0 and 1.
            delay_ticks: Age of a chunk when its first row is executed, below the horizon.
        """
        self._policy = policy
        self._delay = delay_ticks
        self._chunk: FloatArray | None = None
        self._chunk_tick = 0
        self._asked: tuple[FloatArray, int] | None = None
        self.times_s: list[float] = []

    def act(self, tick: int, observation: PolicyObservation, hold: FloatArray) -> FloatArray:
        """Action of this tick, SI, shape (7,).

        Args:
            tick: Counts from 0.
            observation: What is seen at this tick.
            hold: What to do as long as there is no chunk.
        """
        if self._asked is not None and tick - self._asked[1] >= self._delay:
            is_first = self._chunk is None
            self._chunk, asked_tick = self._asked
            self._chunk_tick = tick if is_first else asked_tick
            self._asked = None
        if self._delay == 0:
            self._chunk, self._chunk_tick = self._infer(observation, None), tick
        elif self._asked is None:
            promised = self._rows(tick, hold)
            lock = Prefix(actions=promised, num_locked=self._delay, conditioning=Conditioning.LOCK)
            self._asked = (self._infer(observation, None if self._chunk is None else lock), tick)
        row: FloatArray = self._rows(tick, hold)[0]
        return row

    def _rows(self, tick: int, hold: FloatArray) -> FloatArray:
        """What will be executed from this tick on, shape (max(1, delay), 7)."""
        count = max(1, self._delay)
        left = np.empty((0, ACTION_DIM))
        if self._chunk is not None:
            left = self._chunk[tick - self._chunk_tick :][:count]
        return np.concatenate([left, np.repeat(hold[None], count - len(left), axis=0)])

    def _infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        begin_s = time.perf_counter()
        chunk = self._policy.infer(observation, prefix)
        self.times_s.append(time.perf_counter() - begin_s)
        return chunk


def run_episode(
    sim: FastSim, policy: ChunkPolicy, scene: Task, told: Task, *, seed: int, delay_ticks: int
) -> BaseEpisode:
    """Run one episode to the success of the told task, or to the end of its time.

    Args:
        sim: The simulator.
        policy: What is evaluated.
        scene: Task whose layout is drawn.
        told: Task whose instruction is given; the same unless instructions are swapped.
        seed: Of the layout.
        delay_ticks: See the module.
    """
    sim.reset(scene, seed=seed)
    policy.reset()
    executor = DelayedExecutor(policy, delay_ticks)
    period_s = sim.spec.control_period_s
    is_done = did_other = went_wrong = False
    last_action: FloatArray | None = None
    tick = 0
    while not is_done and tick < round(TASKS[told].time_limit_s / period_s):
        last_action = executor.act(tick, *seen(sim, told, last_action))
        sim.step(last_action)
        is_done = is_success(told, sim.data, sim.ids)
        did_other |= scene is not told and is_success(scene, sim.data, sim.ids)
        went_wrong |= _is_at_another_object(sim, told)
        tick += 1
    return BaseEpisode(
        scene=scene.value,
        told=told.value,
        seed=seed,
        is_success=is_done,
        did_other=did_other,
        went_wrong=went_wrong,
        ticks=tick,
        inference_ms=1e3 * float(np.median(executor.times_s)),
        slowest_ms=1e3 * max(executor.times_s),
    )


def seen(
    sim: FastSim,
    told: Task,
    last_action: FloatArray | None,
    images: Mapping[str, ImageArray] | None = None,
) -> tuple[PolicyObservation, FloatArray]:
    """What a policy sees that is told a task, and the action that holds the arm meanwhile.

    Args:
        sim: At the tick.
        told: The task.
        last_action: Executed at the last tick, None at the first.
        images: Of the tick, where somebody has rendered them already.
    """
    observation = PolicyObservation(
        stamp_ns=round(sim.time_s * 1e9),
        images=sim.images() if images is None else images,
        state=sim.state(),
        instruction=TASKS[told].instruction,
        task=told.value,
        last_action=last_action,
        target=sim.tcp(),
    )
    return observation, hold_action(float(sim.is_open_commanded))


def _is_at_another_object(sim: FastSim, told: Task) -> bool:
    tcp_m = sim.tcp().position_m
    if tcp_m[2] > _LOW_M:
        return False
    objects = sim.objects()
    offsets = [
        objects[name].position_m[:2] - tcp_m[:2] for task, name in _OBJECTS.items() if task != told
    ]
    return bool(min(np.hypot(x, y) for x, y in offsets) < _NEAR_M)


def summary(episodes: Sequence[BaseEpisode]) -> dict[str, dict[str, float]]:
    """Numbers per pair of scene and told task, ``lift`` or, swapped, ``lift_told_button``."""
    groups: dict[str, list[BaseEpisode]] = {}
    for episode in episodes:
        is_swapped = episode.scene != episode.told
        name = f"{episode.scene}_told_{episode.told}" if is_swapped else episode.told
        groups.setdefault(name, []).append(episode)
    return {name: _numbers(group) for name, group in groups.items()}


def _numbers(group: Sequence[BaseEpisode]) -> dict[str, float]:
    times_ms = [episode.inference_ms for episode in group]
    return {
        "episodes": len(group),
        "success": sum(episode.is_success for episode in group),
        "did_other": sum(episode.did_other for episode in group),
        "wrong_object": sum(episode.went_wrong for episode in group),
        "median_ticks": float(np.median([episode.ticks for episode in group])),
        "inference_p50_ms": round(float(np.median(times_ms)), 2),
        "inference_max_ms": round(max(episode.slowest_ms for episode in group), 2),
    }
