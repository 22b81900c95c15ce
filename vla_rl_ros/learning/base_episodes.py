# SPDX-License-Identifier: Apache-2.0
"""Scripted demonstrations in the fast simulator, for training a base policy.

Three kinds of episodes. *Demonstrations* run the expert to success, disturbed by white noise and
by bursts of a constant push (DART, arXiv 1703.09327): the labels stay the expert's answer to what
it sees. *Paired clips* start one scene anywhere in the workspace under both instructions of an
empty hand and show the first ticks only, which is where the instruction decides. *Touches* first
press the peg onto the block beside the hole, where an arm that acts on old images ends up, and
then show how it gets in.

Called by `base_training` and by tests. Every episode has its own random stream, so one seed gives
one data set whatever the number of processes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX
from vla_rl_ros.core.types import FloatArray, Pose
from vla_rl_ros.learning.base_bursts import Bursts
from vla_rl_ros.learning.base_data import IMAGE_PX, TARGETS, TASK_ORDER, DemoSet, joined
from vla_rl_ros.learning.base_scene import VaryingCells
from vla_rl_ros.policies.expert_view import ExpertView
from vla_rl_ros.policies.experts import expert_action
from vla_rl_ros.policies.pi0.images import shrink
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.layouts import Layout, sample_layout
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.tasks import Task

SHARD_EPISODES = 20
SHARD_PAIRS = 25
SHARD_TOUCHES = 20

_MAX_TICKS = 120
_AFTER_SUCCESS_TICKS = 5
_NOISE = np.array([0.002, 0.002, 0.002, 0.002, 0.002, 0.008])
_PEG_NOISE_SCALE = 0.6
_MAX_IMAGE_AGE_STEPS = 3
_IMAGE_AGE_STEP_S = 0.01
_CLOSED_AT_START_PART = {Task.LIFT: 0.2, Task.BUTTON: 0.5}
_CLOSING_TICKS = 6
_CLIP_TICKS = 14
_CLIP_NOISE_SCALE = 1.5
_CLIP_ANYWHERE_PART = 0.6
_CLIP_CLOSED_PART = 0.4
_TOUCH_START_M = 0.018
_TOUCH_HEIGHT_M = (0.105, 0.135)
_TOUCH_TICKS = (4, 10)
_TOUCH_DRAG_M = 0.004
_TOUCH_PRESS_M = (0.006, 0.014)
_CLIP_LOW_M, _CLIP_HIGH_M = (-0.12, -0.14, -0.10), (0.12, 0.14, 0.06)


def collect_shard(
    cells: VaryingCells,
    seed: int,
    shard: int,
    *,
    num_episodes: int = SHARD_EPISODES,
    num_pairs: int = SHARD_PAIRS,
    num_touches: int = SHARD_TOUCHES,
) -> DemoSet:
    """Collect the episodes of one shard: demonstrations of every task, paired clips, touches.

    Args:
        cells: Simulators of this process.
        seed: Of the data set.
        shard: Number of the shard.
        num_episodes: Demonstrations per task.
        num_pairs: Scenes shown under both instructions.
        num_touches: Insertions that begin beside the hole.
    """
    parts = []
    for number in range(num_episodes):
        for index, task in enumerate(TASK_ORDER):
            rng = np.random.default_rng([seed, shard, 0, number, index])
            parts.append(_demonstration(cells, task, rng))
    for number in range(num_pairs):
        for task in (Task.LIFT, Task.BUTTON):
            # The same stream for both, hence the same scene.
            rng = np.random.default_rng([seed, shard, 1, number])
            parts.append(_clip(cells, task, rng))
    parts += [
        _touch(cells, np.random.default_rng([seed, shard, 2, number]))
        for number in range(num_touches)
    ]
    return joined(parts)


class Episode:
    """One running episode: acts, watches and notes.

    Attributes:
        sim: Steps it.
        task: What is shown.
        num_to_success: Ticks up to the one that solved the task, itself included; None before.
        state_at_success: Proprioception right after that tick, shape (20,); None before.
    """

    def __init__(
        self, sim: FastSim, task: Task, rng: np.random.Generator, *, image_px: int = IMAGE_PX
    ) -> None:
        self.sim, self.task, self._rng, self._image_px = sim, task, rng, image_px
        self._rows: list[tuple[FloatArray, FloatArray, FloatArray, FloatArray, bool]] = []
        self._images: list[NDArray[np.uint8]] = []
        self._seen = self._watch()
        self.num_to_success: int | None = None
        self.state_at_success: FloatArray | None = None

    def close_hand(self) -> None:
        """Stand still until the fingers are closed."""
        for _ in range(_CLOSING_TICKS):
            self.sim.step(np.zeros(ACTION_DIM))
        self._seen = self._watch()

    def label(self) -> FloatArray:
        """What the expert does now."""
        sim = self.sim
        view = ExpertView(
            tcp=sim.tcp(),
            gripper_width_m=sim.gripper_state().width_m,
            is_gripper_open=sim.is_open_commanded,
            objects=sim.objects(),
            tick=len(self._rows),
        )
        return expert_action(self.task.value, view)

    def execute(self, label: FloatArray, action: FloatArray, *, is_pushed: bool) -> bool:
        """Note this tick and do `action`; returns whether the task is solved.

        The image of the next tick is up to three periods of the reference old, as in a graph
        whose cameras do not wait for the tick.
        """
        sim = self.sim
        offset = sim.objects()[TARGETS[self.task]].position_m - sim.tcp().position_m
        self._rows.append((sim.state(), label, action, offset, is_pushed))
        self._images.append(self._seen)
        age_s = _IMAGE_AGE_STEP_S * int(self._rng.integers(0, _MAX_IMAGE_AGE_STEPS + 1))
        sim.command(action)
        sim.advance(sim.spec.control_period_s - age_s)
        self._seen = self._watch()
        sim.advance(age_s)
        is_success = sim.is_success()
        if is_success and self.num_to_success is None:
            self.num_to_success, self.state_at_success = len(self._rows), sim.state()
        return is_success

    def _watch(self) -> NDArray[np.uint8]:
        images = self.sim.images()
        return np.stack([shrink(images[name], self._image_px, name) for name in CAMERAS])

    def demo_set(self) -> DemoSet:
        """Everything noted."""
        states, labels, executed, targets, pushed = zip(*self._rows, strict=True)
        count = len(self._rows)
        return DemoSet(
            images=np.stack(self._images),
            states=np.array(states, dtype=np.float32),
            labels=np.array(labels, dtype=np.float32),
            executed=np.array(executed, dtype=np.float32),
            targets_m=np.array(targets, dtype=np.float32),
            tasks=np.full(count, TASK_ORDER.index(self.task)),
            is_pushed=np.array(pushed),
            episodes=np.zeros(count, dtype=np.int64),
        )


def _demonstration(cells: VaryingCells, task: Task, rng: np.random.Generator) -> DemoSet:
    """One episode to success; draws again where the expert fails."""
    while True:
        sim = cells.draw(task, rng)
        sim.reset(task, layout=sample_layout(task, sim.config, rng))
        episode = Episode(sim, task, rng)
        if rng.random() < _CLOSED_AT_START_PART.get(task, 0.0):
            episode.close_hand()
        if solve(episode, rng):
            return episode.demo_set()


def _touch(cells: VaryingCells, rng: np.random.Generator) -> DemoSet:
    """An insertion that begins beside the hole."""
    while True:
        episode = begin_beside(cells.draw(Task.PEG, rng), rng)
        if solve(episode, rng):
            return episode.demo_set()


def begin_beside(sim: FastSim, rng: np.random.Generator, *, image_px: int = IMAGE_PX) -> Episode:
    """Begin an insertion with the peg pressed down and dragged about beside the hole.

    Args:
        sim: Any cell with the peg.
        rng: Source of randomness.
        image_px: Side of the images that are kept.
    """
    layout = sample_layout(Task.PEG, sim.config, rng)
    beside_m = layout.hole_xy_m + rng.uniform(-_TOUCH_START_M, _TOUCH_START_M, 2)
    start_m = np.append(beside_m, rng.uniform(*_TOUCH_HEIGHT_M))
    start = Pose(start_m, layout.start.quat_xyzw)
    sim.reset(Task.PEG, layout=dataclasses.replace(layout, start=start))
    episode = Episode(sim, Task.PEG, rng, image_px=image_px)
    press_down(episode, rng, press_m=_TOUCH_PRESS_M, num_ticks=_TOUCH_TICKS)
    return episode


def press_down(
    episode: Episode,
    rng: np.random.Generator,
    *,
    press_m: tuple[float, float],
    num_ticks: tuple[int, int],
) -> None:
    """Push the hand down and a little sideways, whatever the expert would do.

    Args:
        episode: Goes on from where it is.
        rng: Source of randomness.
        press_m: Least and largest way of the target down per tick.
        num_ticks: Fewest ticks, and one more than the most.
    """
    press = np.zeros(ACTION_DIM)
    press[:2] = rng.uniform(-_TOUCH_DRAG_M, _TOUCH_DRAG_M, 2)
    press[2] = -rng.uniform(*press_m)
    press[GRIPPER_INDEX] = float(episode.sim.is_open_commanded)
    for _ in range(int(rng.integers(*num_ticks))):
        episode.execute(episode.label(), press, is_pushed=True)


def solve(episode: Episode, rng: np.random.Generator, *, has_bursts: bool = True) -> bool:
    """Let the expert drive, disturbed, to a few ticks behind the success.

    Args:
        episode: Goes on from where it is.
        rng: Source of randomness.
        has_bursts: Whether there may be pushes besides the noise.

    Returns:
        Whether it got there.
    """
    task = episode.task
    bursts = Bursts(task, rng)
    noise = _NOISE * (_PEG_NOISE_SCALE if task is Task.PEG else 1.0)
    ticks_solved = 0
    for tick in range(_MAX_TICKS):
        label = episode.label()
        is_pushed = has_bursts and bursts.is_pushing(tick, is_solved=ticks_solved > 0)
        action = bursts.disturbed(label) if is_pushed else _noisy(label, noise, rng)
        is_success = episode.execute(label, action, is_pushed=is_pushed)
        ticks_solved += is_success or ticks_solved > 0
        if ticks_solved > _AFTER_SUCCESS_TICKS:
            break
    return ticks_solved > 0


def _clip(cells: VaryingCells, task: Task, rng: np.random.Generator) -> DemoSet:
    """The first ticks of a task from anywhere."""
    sim = cells.draw(task, rng)
    sim.reset(task, layout=_moved(sample_layout(task, sim.config, rng), rng))
    episode = Episode(sim, task, rng)
    if rng.random() < _CLIP_CLOSED_PART:
        episode.close_hand()
    for _ in range(_CLIP_TICKS):
        label = episode.label()
        action = _noisy(label, _CLIP_NOISE_SCALE * _NOISE, rng)
        episode.execute(label, action, is_pushed=False)
    return episode.demo_set()


def _moved(layout: Layout, rng: np.random.Generator) -> Layout:
    """The same scene with the hand somewhere else in the workspace, in most cases."""
    if rng.random() > _CLIP_ANYWHERE_PART:
        return layout
    middle = np.array([0.5, 0.0, 0.25])
    position_m = middle + rng.uniform(_CLIP_LOW_M, _CLIP_HIGH_M)
    return dataclasses.replace(layout, start=Pose(position_m, layout.start.quat_xyzw))


def _noisy(label: FloatArray, noise: FloatArray, rng: np.random.Generator) -> FloatArray:
    action = label.copy()
    action[:GRIPPER_INDEX] += noise * rng.standard_normal(GRIPPER_INDEX)
    return action
