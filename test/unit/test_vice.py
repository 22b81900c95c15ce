# SPDX-License-Identifier: Apache-2.0
"""VICE: a blind spot that the policy finds is closed, and old rows are paid by present belief."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.presets import LearnerConfig, preset
from vla_rl_ros.learning.vice import Vice, ViceSettings, check_learner

RNG = np.random.default_rng(0)
GOALS = (np.array([2.0, 2.0]) + 0.1 * RNG.standard_normal((20, 2))).astype(np.float32)
SEEN = (np.array([0.0, 0.0]) + 0.3 * RNG.standard_normal((200, 2))).astype(np.float32)
BLIND = (np.array([4.0, 0.0]) + 0.1 * RNG.standard_normal((200, 2))).astype(np.float32)
QUICK = ViceSettings(learning_rate=1e-2)


def trained(updates=100, **changes):
    vice = Vice(GOALS, SEEN, dataclasses.replace(QUICK, **changes))
    for number in range(updates):
        vice.update(SEEN[number % 4 :: 4])
    return vice


def test_it_learns_goals_and_has_a_blind_spot_that_updates_close():
    vice = trained()
    assert vice.reward(GOALS).all()
    assert not vice.reward(SEEN).any()
    assert vice.reward(BLIND).mean() > 0.9  # never seen, and taken for success
    for number in range(150):
        vice.update(BLIND[number % 4 :: 4])
    assert vice.reward(BLIND).mean() < 0.1
    assert vice.reward(GOALS).mean() > 0.9


def test_a_batch_is_paid_by_the_present_classifier_and_stays_as_it_was():
    vice = trained()
    batch = {"reward": np.zeros(2, np.float32), "next_obs": np.stack([GOALS[0], BLIND[0]])}
    before = vice.relabelled(batch)["reward"]
    np.testing.assert_array_equal(before, [1.0, 1.0])
    for number in range(150):
        vice.update(BLIND[number % 4 :: 4])
    np.testing.assert_array_equal(vice.relabelled(batch)["reward"], [1.0, 0.0])
    np.testing.assert_array_equal(batch["reward"], [0.0, 0.0])


def test_the_gradient_penalty_keeps_the_slope_near_one():
    flat, steep = (
        trained(mixup=0.0, smoothing=0.0, gradient_penalty=weight).update(SEEN[:64])[
            "vice_penalty"
        ]
        for weight in (10.0, 0.0)
    )
    assert 4.0 * flat < steep


def test_equal_seeds_are_equal_and_a_state_goes_on():
    first, second = trained(20), trained(20)
    np.testing.assert_array_equal(first.probability(BLIND), second.probability(BLIND))
    resumed = Vice(GOALS, BLIND, QUICK)
    resumed.load_state_dict(first.state_dict())
    for vice in (resumed, second):
        vice.update(SEEN[:50])
    np.testing.assert_array_equal(resumed.probability(BLIND), second.probability(BLIND))
    assert resumed.num_updates == 21
    with pytest.raises(ConfigError, match="not of vice"):
        Vice(GOALS[:5], SEEN, QUICK).load_state_dict(first.state_dict())


def test_mistakes_are_refused_by_name():
    with pytest.raises(ConfigError, match="positives have shape"):
        Vice(GOALS[:0], SEEN)
    with pytest.raises(ConfigError, match=r"wanted is \(M, 2\)"):
        Vice(GOALS, SEEN[:, :1])
    with pytest.raises(ConfigError, match="observations have shape"):
        trained(1).update(SEEN[:, :1])
    with pytest.raises(ConfigError, match="there are no negatives"):
        trained(1).update(SEEN[:0])
    with pytest.raises(ConfigError, match="n_step=5"):
        check_learner(LearnerConfig())
    with pytest.raises(ConfigError, match="Cal-QL"):
        check_learner(preset("calql"))
    check_learner(dataclasses.replace(preset("hil_serl"), n_step=1))
