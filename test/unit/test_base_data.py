# SPDX-License-Identifier: Apache-2.0
"""Demonstrations from the fast simulator."""

from __future__ import annotations

import numpy as np
import pytest
from unit.base_demos import demo_set

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning import base_shards
from vla_rl_ros.learning.base_data import TASK_ORDER, DemoSet
from vla_rl_ros.learning.base_episodes import collect_shard
from vla_rl_ros.learning.base_labels import paired_starts

EPISODES = 2


@pytest.fixture(scope="module")
def shard(cells) -> DemoSet:
    return collect_shard(cells, 0, 0, num_episodes=EPISODES, num_pairs=1, num_touches=1)


def episode_of(demos, number):
    ticks = demos.episodes == number
    return {name: values[ticks] for name, values in demos.arrays().items()}


def test_equal_seeds_give_equal_demonstrations_whatever_was_collected_before(cells, shard):
    again = collect_shard(cells, 0, 0, num_episodes=EPISODES, num_pairs=1, num_touches=1)

    assert all(
        np.array_equal(values, again.arrays()[name]) for name, values in shard.arrays().items()
    )


def test_other_shards_show_other_scenes(cells, shard):
    other = collect_shard(cells, 0, 1, num_episodes=1, num_pairs=0, num_touches=0)

    assert not np.array_equal(episode_of(shard, 0)["states"][0], episode_of(other, 0)["states"][0])


def test_every_task_is_shown_to_its_end(shard):
    for number in range(EPISODES * len(TASK_ORDER)):
        episode = episode_of(shard, number)
        assert (episode["tasks"] == number % len(TASK_ORDER)).all()
        # The button's target is its cap, which the tips touch; the cube is between the fingers;
        # the hole is below the hand by the length of the peg.
        assert np.linalg.norm(episode["targets_m"][-1]) < 0.08


def test_labels_stay_calm_where_the_arm_was_disturbed(shard):
    difference = np.abs(shard.executed - shard.labels)[:, :3].max(1)

    assert shard.is_pushed.any()
    assert difference[shard.is_pushed].mean() > 3.0 * difference[~shard.is_pushed].mean()
    assert np.abs(shard.labels[:, :3]).max() <= 0.0141


def test_paired_clips_show_one_scene_under_two_instructions(shard):
    ((lift, button),) = paired_starts(shard)

    assert np.array_equal(shard.images[lift], shard.images[button])
    assert np.array_equal(shard.states[lift], shard.states[button])
    assert np.linalg.norm(shard.targets_m[lift] - shard.targets_m[button]) > 0.1


def test_touches_begin_beside_the_hole_and_end_in_it(shard):
    episode = episode_of(shard, int(shard.episodes[-1]))
    offsets = np.linalg.norm(episode["targets_m"][:, :2], axis=1)
    first_calm = int(np.flatnonzero(~episode["is_pushed"])[0])
    height_m = episode["states"][:, 2]

    assert episode["is_pushed"][0]
    assert first_calm >= 4
    assert offsets[-1] < 0.004
    assert height_m[-1] < height_m[first_calm] - 0.01


def test_damaged_shards_are_refused_by_name(tmp_path):
    (tmp_path / "seed0_shard000.npz").write_bytes(b"PK nothing")

    with pytest.raises(ConfigError, match=r"seed0_shard000\.npz"):
        base_shards.load(tmp_path, seed=0, shards=[0])
    with pytest.raises(ConfigError, match=r"seed0_shard001\.npz"):
        base_shards.load(tmp_path, seed=0, shards=[1])


def test_shards_on_disk_are_not_collected_again(tmp_path):
    demos = demo_set()
    for number in range(2):
        np.savez(tmp_path / f"seed0_shard{number:03d}.npz", **demos.arrays())
    base_shards.collect(tmp_path, seed=0, num_shards=2, num_processes=1)
    loaded = base_shards.load(tmp_path, seed=0, shards=range(2))

    assert len(loaded) == 2 * len(demos)
    assert loaded.episodes[-1] == 2 * demos.episodes[-1] + 1
