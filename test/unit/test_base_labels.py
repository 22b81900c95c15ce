# SPDX-License-Identifier: Apache-2.0
"""What a training sample shows, hides and normalises."""

from __future__ import annotations

import numpy as np
import pytest
from unit.base_demos import demo_set, episode

from vla_rl_ros.core.spec import STATE_DIM
from vla_rl_ros.learning.base_data import joined
from vla_rl_ros.learning.base_labels import (
    MAX_DELAY_TICKS,
    STATE_CHANNELS,
    Sampler,
    Scales,
    delay_weights,
    measure_scales,
    paired_starts,
    proprioception,
)
from vla_rl_ros.policies.protocol import PolicyObservation
from vla_rl_ros.policies.state_codec import StateCodec

HORIZON = 6
PLAIN = Scales(
    state_mean=np.zeros(10),
    state_std=np.ones(10),
    action_mean=np.zeros(7),
    action_std=np.ones(7),
)


def sample(demos, tick, delay):
    return Sampler(demos, PLAIN, HORIZON).at(np.array([tick]), np.array([delay]))


def counted(demos, tick, delay):
    """Rows whose label counts."""
    return np.flatnonzero(sample(demos, tick, delay).masks[0]).tolist()


def test_rows_before_the_delay_are_what_was_executed_and_do_not_count():
    demos = episode(20)
    (actions,) = sample(demos, 3, 2).actions

    assert np.array_equal(actions[:2], demos.executed[3:5])
    assert np.array_equal(actions[2:], demos.labels[5:9])
    assert counted(demos, 3, 2) == [2, 3, 4, 5]


def test_nothing_counts_after_a_push_that_the_prefix_does_not_show():
    demos = episode(20, pushed=(5, 6))

    # The label of the first pushed tick still answers to what came before it.
    assert counted(demos, 3, 0) == [0, 1, 2]
    assert counted(demos, 3, 1) == [1, 2]
    # With both pushed ticks in the prefix everything behind them is foretold.
    assert counted(demos, 3, 4) == [4, 5]
    # One of the two is not enough.
    assert counted(demos, 3, 3) == [3]


def test_nothing_counts_after_the_end_of_the_episode():
    demos = joined([episode(8), episode(8, seed=1)])

    assert counted(demos, 5, 0) == [0, 1, 2]
    assert counted(demos, 5, 4) == []
    assert counted(demos, 8, 0) == [0, 1, 2, 3, 4, 5]


def test_one_tick_is_the_most_frequent_delay_and_longer_ones_get_rarer():
    weights = delay_weights()

    assert len(weights) == MAX_DELAY_TICKS + 1
    assert weights.sum() == pytest.approx(1.0)
    assert weights.argmax() == 1
    assert (np.diff(weights[1:]) < 0).all()
    assert (weights > 0.01).all()


def test_after_holding_still_the_episode_goes_on_as_it_did():
    demos = episode(20)
    demos.states[0, -1] = 0.08
    sampler = Sampler(demos, PLAIN, HORIZON)
    sample = sampler.at(np.array([0]), np.array([2]), np.array([True]))

    assert sample.actions[0, :2].tolist() == [[0.0] * 6 + [1.0]] * 2
    assert np.array_equal(sample.actions[0, 2:], demos.labels[:4])
    assert sample.masks[0].tolist() == [False, False, True, True, True, True]


def test_first_ticks_are_drawn_often_and_half_of_them_without_a_prefix():
    demos = joined([episode(100, task=task, seed=task) for task in range(3)])
    samples = Sampler(demos, PLAIN, HORIZON).draw(4000, np.random.default_rng(0))
    firsts = demos.states[[0, 100, 200], :10]
    is_first = (samples.states[:, None, :3] == firsts[None, :, :3]).all(-1).any(-1)

    assert is_first.mean() == pytest.approx(0.26, abs=0.03)
    assert (samples.delays[is_first] == 0).mean() == pytest.approx(0.57, abs=0.05)


def test_first_ticks_are_nothing_special_where_episodes_do_not_begin_at_rest():
    demos = episode(100)
    samples = Sampler(demos, PLAIN, HORIZON, start_part=0.0).draw(4000, np.random.default_rng(0))
    is_first = (samples.states[:, :3] == demos.states[0, :3]).all(-1)

    assert is_first.mean() == pytest.approx(0.01, abs=0.006)


def test_proprioception_is_what_the_runtime_feeds():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(5, STATE_DIM)).astype(np.float32)
    states[:, 3:7] /= np.linalg.norm(states[:, 3:7], axis=1, keepdims=True)
    codec = StateCodec(STATE_CHANNELS)
    wanted = [
        codec.encode(
            PolicyObservation(stamp_ns=0, images={}, state=state, instruction="", task="")
        )
        for state in states.astype(np.float64)
    ]

    assert np.allclose(proprioception(states), wanted, atol=1e-6)


def test_samples_are_normalised_with_a_floor_for_what_hardly_varies():
    demos = demo_set(30)
    scales = measure_scales(demos)
    samples = Sampler(demos, scales, HORIZON).draw(2000, np.random.default_rng(0))

    assert samples.states[:, 0].std() == pytest.approx(1.0, abs=0.1)
    # Rotations never change in these demonstrations.
    assert scales.action_std[3] == pytest.approx(0.01)
    assert np.abs(samples.actions[..., 3]).max() < 0.2


def test_every_task_is_drawn_equally_often():
    demos = joined([episode(60, task=0), episode(8, task=1), episode(8, task=2)])
    samples = Sampler(demos, PLAIN, HORIZON).draw(3000, np.random.default_rng(0))

    assert np.bincount(samples.tasks) == pytest.approx([1000, 1000, 1000], rel=0.1)


def test_equal_streams_draw_equal_samples():
    sampler = Sampler(demo_set(), PLAIN, HORIZON)
    one, other = (sampler.draw(16, np.random.default_rng(4)) for _ in range(2))

    assert np.array_equal(one.actions, other.actions)
    assert np.array_equal(one.delays, other.delays)


def test_paired_starts_share_a_scene_and_differ_in_the_task():
    demos = joined(
        [
            episode(5, task=0, seed=1),
            episode(5, task=1, seed=1),
            episode(5, task=2, seed=1),
            episode(5, task=0, seed=2),
            episode(5, task=1, seed=3),
        ]
    )

    assert paired_starts(demos).tolist() == [[0, 5]]
