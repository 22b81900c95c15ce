# SPDX-License-Identifier: Apache-2.0
"""Scripted demonstrations in the fast simulator for trained eyes, disturbed all the time.

Apart from the rest, because it imports mujoco: call `sim.offscreen.use_offscreen_rendering` before
this module is imported. Called by `vla-rl-ros train eyes --simulate`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.spec import STATE_CHANNELS
from vla_rl_ros.core.types import Pose
from vla_rl_ros.data.label_frames import STATE_NAMES
from vla_rl_ros.learning.base_data import TASK_ORDER
from vla_rl_ros.learning.base_episodes import Episode, begin_beside, press_down, solve
from vla_rl_ros.learning.eyes_episodes import ShownEpisode, key_ways_m, normalised_actions
from vla_rl_ros.sim.fast_sim import FastSim
from vla_rl_ros.sim.layouts import sample_layout
from vla_rl_ros.sim.scene_ids import CAMERAS
from vla_rl_ros.sim.tasks import Task
from vla_rl_ros.sim.variants import variant

_BESIDE_PART = 0.35
_ASTRAY_HEIGHT_M = (0.09, 0.17)
_ASTRAY_SPREAD_M = 0.07
_PRESS_M = (0.008, 0.014)
_ASTRAY_TICKS = (2, 13)
_STUCK_TICKS = (0, 15)
_SEED = 20_262
_MAX_DRAWS = 50


def simulated(task_name: str, variant_name: str, count: int, seed: int) -> Iterator[ShownEpisode]:
    """Demonstrations up to the tick that solves the task.

    A third begins where a policy gets to that does not see where to go: with the peg pressed down
    beside the hole, with an empty hand low down near any object, often the wrong one.

    Args:
        task_name: What is shown.
        variant_name: Of the scene.
        count: Demonstrations; one in which the expert fails is drawn again.
        seed: Of all of them.

    Raises:
        ConfigError: Unknown task or variant, one that nobody can show, or an expert that fails
            again and again.
    """
    by_name = {task.value: task for task in TASK_ORDER}
    if task_name not in by_name:
        raise ConfigError(f"--simulate {task_name}: only {', '.join(by_name)} can be shown")
    task = by_name[task_name]
    sim = FastSim(variant(variant_name))
    try:
        for number in range(count):
            episode = _demonstration(sim, task, np.random.default_rng([_SEED, seed, number]))
            yield _shown(episode, f"sim_{task_name}_{variant_name}_{seed}_{number}")
    finally:
        sim.close()


def _demonstration(sim: FastSim, task: Task, rng: np.random.Generator) -> Episode:
    for _ in range(_MAX_DRAWS):
        episode = _begun(sim, task, rng)
        if solve(episode, rng):
            return episode
    raise ConfigError(f"the expert failed at {task.value} {_MAX_DRAWS} times: change --variant")


def _begun(sim: FastSim, task: Task, rng: np.random.Generator) -> Episode:
    image_px = sim.config.image_px
    if rng.random() >= _BESIDE_PART:
        sim.reset(task, layout=sample_layout(task, sim.config, rng))
        return Episode(sim, task, rng, image_px=image_px)
    if task is Task.PEG:
        episode = begin_beside(sim, rng, image_px=image_px)
        # A policy goes on pressing, and the peg slides on and turns in the hand.
        press_down(episode, rng, press_m=_PRESS_M, num_ticks=_STUCK_TICKS)
        return episode
    layout = sample_layout(task, sim.config, rng)
    places_m = (layout.cube.position_m[:2], layout.button_xy_m, layout.hole_xy_m)
    beside_m = places_m[rng.integers(3)] + rng.uniform(-_ASTRAY_SPREAD_M, _ASTRAY_SPREAD_M, 2)
    start = Pose(np.append(beside_m, rng.uniform(*_ASTRAY_HEIGHT_M)), layout.start.quat_xyzw)
    sim.reset(task, layout=dataclasses.replace(layout, start=start))
    episode = Episode(sim, task, rng, image_px=image_px)
    press_down(episode, rng, press_m=_PRESS_M, num_ticks=_ASTRAY_TICKS)
    return episode


def _shown(episode: Episode, name: str) -> ShownEpisode:
    noted = episode.demo_set()
    count = episode.num_to_success
    assert count is not None
    assert episode.state_at_success is not None
    # What an action led to is noted with the next one, and the one that solved is the last here.
    states = np.vstack([noted.states[:count], episode.state_at_success])
    columns = [STATE_CHANNELS.index(channel) for channel in STATE_NAMES]
    places_m, widths_m = states[:, columns[:3]], states[:, columns[3]]
    return ShownEpisode(
        name=name,
        task=episode.task.value,
        is_simulated=True,
        images={camera: noted.images[:count, at] for at, camera in enumerate(CAMERAS)},
        ways_m=key_ways_m(places_m, widths_m)[:count],
        actions=normalised_actions(noted.labels[:count]),
    )
