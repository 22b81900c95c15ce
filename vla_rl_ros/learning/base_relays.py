# SPDX-License-Identifier: Apache-2.0
"""Relays: the policy that is being trained drives first, late answers and all, then the expert.

Demonstrations never show where a policy gets to that acts on old images. Here it drives for a
random time with a random delay, and the expert shows the way on from there, as in DAgger
(arXiv 1011.0686). What the policy does is marked as pushed: it is seen in locked prefixes, but
nothing is learned from it except what the expert would have done instead at that tick. Where the
policy needs no help the task is drawn again, so relays lean to what it finds hard.

Called by `base_shards`.
"""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.types import FloatArray
from vla_rl_ros.learning.base_data import DemoSet, joined
from vla_rl_ros.learning.base_episodes import Episode, solve
from vla_rl_ros.learning.base_eval import DelayedExecutor, seen
from vla_rl_ros.learning.base_scene import VaryingCells
from vla_rl_ros.policies.pi0.policy import CheckpointPolicy
from vla_rl_ros.sim.layouts import sample_layout
from vla_rl_ros.sim.tasks import Task

SHARD_RELAYS = 15

_STREAM = 3
"""Tells these episodes' random streams from those of `base_episodes`."""
_TASKS, _TASK_PARTS = (Task.PEG, Task.LIFT, Task.BUTTON), (0.7, 0.2, 0.1)
_DELAY_TICKS = (2, 8)
_FIRST_TICKS = {Task.PEG: (8, 70), Task.LIFT: (8, 30), Task.BUTTON: (8, 30)}


def collect_relay_shard(
    cells: VaryingCells,
    policy: CheckpointPolicy,
    seed: int,
    shard: int,
    *,
    num_relays: int = SHARD_RELAYS,
) -> DemoSet:
    """Collect the relays of one shard.

    Args:
        cells: Simulators of this process.
        policy: Drives first.
        seed: Of the data set.
        shard: Number of the shard.
        num_relays: Episodes.
    """
    return joined(
        [
            _relay(cells, policy, np.random.default_rng([seed, shard, _STREAM, number]))
            for number in range(num_relays)
        ]
    )


def _relay(cells: VaryingCells, policy: CheckpointPolicy, rng: np.random.Generator) -> DemoSet:
    """One relay; draws again where the policy needs no help or the expert cannot give it."""
    while True:
        task = _TASKS[rng.choice(len(_TASKS), p=_TASK_PARTS)]
        sim = cells.draw(task, rng)
        sim.reset(task, layout=sample_layout(task, sim.config, rng))
        policy.reseed(int(rng.integers(2**31)))
        episode = Episode(sim, task, rng)
        executor = DelayedExecutor(policy, int(rng.integers(*_DELAY_TICKS)))
        num_ticks = int(rng.integers(*_FIRST_TICKS[task]))
        is_done = _drive(episode, executor, num_ticks)
        # Bursts would hide most of the way that is to be shown.
        if not is_done and solve(episode, rng, has_bursts=False):
            return episode.demo_set()


def _drive(episode: Episode, executor: DelayedExecutor, num_ticks: int) -> bool:
    """Let the policy drive; returns whether it got to the end without help."""
    last_action: FloatArray | None = None
    for tick in range(num_ticks):
        last_action = executor.act(tick, *seen(episode.sim, episode.task, last_action))
        if episode.execute(episode.label(), last_action, is_pushed=True):
            return True
    return False
