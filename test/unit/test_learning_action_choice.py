# SPDX-License-Identifier: Apache-2.0
"""Choosing among base actions by value, on a critic whose best action is known."""

from __future__ import annotations

import numpy as np
import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.action_choice import ChoiceConfig, choose_action
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import LearnerConfig

GOAL = np.array([0.3, 0.9], np.float32)
OBS = np.zeros(3)


class Bowl:
    """Two critics that agree on a parabola around the goal, up to an offset."""

    def q(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        assert len(obs) == len(action)
        value = -np.square(action - GOAL).sum(1)
        return np.stack([value, value + 1.0]).astype(np.float32)

    def q_gradient(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        return (-2.0 * (action - GOAL)).astype(np.float32)


def test_best_candidate_is_taken_where_nothing_is_climbed() -> None:
    candidates = np.array([[0.0, 0.0], [0.3, 0.5], [1.0, 1.0]])
    choice = choose_action(Bowl(), OBS, candidates, ChoiceConfig(num_climbs=0))
    assert choice.action.tolist() == pytest.approx([0.3, 0.5])
    assert choice.value == pytest.approx(0.5 - 0.16)
    assert choice.first_value == pytest.approx(0.5 - 0.9)


def test_climbing_reaches_the_goal_within_the_range_of_actions() -> None:
    config = ChoiceConfig(num_climbs=50, climb_size=0.1)
    choice = choose_action(Bowl(), OBS, np.array([[-1.0, -1.0]]), config)
    np.testing.assert_allclose(choice.action, GOAL, atol=1e-3)


def test_climb_that_overshoots_keeps_the_best_it_passed() -> None:
    config = ChoiceConfig(num_climbs=5, climb_size=1.0)
    start = np.array([[0.2, 0.8]])
    choice = choose_action(Bowl(), OBS, start, config)
    assert choice.value >= choice.first_value


def test_first_candidate_stays_unless_beaten_by_the_margin() -> None:
    candidates = np.array([[0.3, 0.8], [0.3, 0.9]])
    config = ChoiceConfig(num_climbs=0, margin=0.05)
    assert choose_action(Bowl(), OBS, candidates, config).action.tolist() == pytest.approx(
        [0.3, 0.8]
    )
    config = ChoiceConfig(num_climbs=0, margin=0.005)
    assert choose_action(Bowl(), OBS, candidates, config).action.tolist() == pytest.approx(
        [0.3, 0.9]
    )


def test_temperature_spreads_the_choice_reproducibly() -> None:
    candidates = np.array([[-1.0, -1.0], [0.3, 0.8], [0.3, 0.9]])
    config = ChoiceConfig(num_climbs=0, temperature=0.1)

    def draw(seed: int) -> list[float]:
        rng = np.random.default_rng(seed)
        return [
            float(choose_action(Bowl(), OBS, candidates, config, rng).action[1]) for _ in range(30)
        ]

    assert draw(1) == draw(1)
    assert len(set(draw(1))) == 2
    with pytest.raises(ConfigError, match="pass rng"):
        choose_action(Bowl(), OBS, candidates, config)


def test_learner_is_a_critic_whose_gradient_is_that_of_its_values() -> None:
    learner = ResidualLearner(LearnerConfig(hidden=(16,)), 3, 2, seed=0)
    action = np.array([[0.1, -0.2]])
    slope = learner.q_gradient(OBS[None], action)[0]
    for channel in range(2):
        step = np.zeros((1, 2))
        step[0, channel] = 1e-2
        ahead, behind = (learner.q(OBS[None], action + s).mean() for s in (step, -step))
        assert slope[channel] == pytest.approx(float(ahead - behind) / 2e-2, abs=2e-2)
    choice = choose_action(learner, OBS, action, ChoiceConfig(num_climbs=20, climb_size=0.05))
    assert choice.value > choice.first_value
