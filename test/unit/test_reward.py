# SPDX-License-Identifier: Apache-2.0
"""The one interface of rewards: sums, versions, and what the learned ones say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.reward import (
    DONE,
    PAID,
    GraspPenalty,
    SumReward,
    TaskReward,
    TimePenalty,
    make_reward,
)
from vla_rl_ros.core.success import Debounce, violated_check
from vla_rl_ros.learning.presets import preset
from vla_rl_ros.learning.reward_plan import RewardPlan
from vla_rl_ros.learning.rewards import (
    ClassifierReward,
    ProgressReward,
    ProgressValue,
)
from vla_rl_ros.learning.rows import Row, RowLayout

OBS = np.zeros(2, np.float32)
ACTION = np.zeros(2, np.float32)


def judge(reward, *, paid=0.0, is_done=False, obs=OBS, action=ACTION, next_obs=OBS):
    return reward(obs, action, next_obs, {PAID: paid, DONE: float(is_done)})


def planned(name, paid="success"):
    return RewardPlan(preset(name), obs_dim=2, obs_version="", paid=paid).episode()


def test_a_sparse_reward_pays_once_and_ends_the_episode():
    reward = make_reward()
    assert judge(reward) == (0.0, {"task": 0.0}, False)
    assert judge(reward, paid=1.0, is_done=True) == (1.0, {"task": 1.0}, True)
    assert (reward.names, reward.version) == (("task",), "success 1")


def test_terms_add_up_and_the_grasp_penalty_stays_apart():
    reward = make_reward(time_penalty=-0.05, grasp_penalty=-0.02)
    assert reward.names == ("task", "time", "grasp_penalty")
    assert reward.version == "success 1, time -0.05"
    judge(reward, action=np.array([0.0, 0.9], np.float32))
    found = judge(reward, paid=1.0, is_done=True, action=np.array([0.0, -0.9], np.float32))
    assert found.reward == pytest.approx(0.95)
    assert dict(found.terms) == {"task": 1.0, "time": -0.05, "grasp_penalty": -0.02}
    assert found.is_done


def test_a_toggle_of_the_gripper_is_penalised_once():
    reward = GraspPenalty(-0.02)
    orders = [0.9, 0.8, 0.1, -0.9, -0.2, 0.0, -0.7, 1.0]
    found = [
        judge(reward, action=np.array([0.0, order], np.float32)).terms["grasp_penalty"]
        for order in orders
    ]
    assert found == [0.0, 0.0, 0.0, -0.02, 0.0, 0.0, 0.0, -0.02]


def test_mistakes_are_refused_by_name():
    with pytest.raises(ConfigError, match="dawdling"):
        TimePenalty(0.1)
    with pytest.raises(ConfigError, match="same name: task, task"):
        SumReward([TaskReward(), TaskReward("env")])


def test_the_settings_of_a_learner_choose_the_terms_that_rows_hold():
    assert planned("pld").names == ("task",)
    reward = planned("hil_serl", "env")
    assert (reward.names, reward.version) == (("task", "grasp_penalty"), "env 1")
    assert RowLayout(obs_dim=2, action_dim=2, reward_terms=reward.names).reward_terms[1]


def test_a_classifier_pays_where_it_sees_success():
    reward = ClassifierReward(lambda seen: float(seen[0]), threshold=0.8, version="abc lift")
    high, low = np.array([0.9, 0], np.float32), np.array([0.7, 0], np.float32)
    assert judge(reward, next_obs=high) == (1.0, {"task": 1.0}, True)
    assert judge(reward, obs=high, next_obs=low) == (0.0, {"task": 0.0}, False)
    assert reward.version == "classifier abc lift at 0.8"


def episode(length, *, number=0, seed=0):
    layout = RowLayout(obs_dim=2, action_dim=2)
    rng = np.random.default_rng(seed)
    along = np.linspace(0.0, 3.0, length)
    return layout.pack(
        [
            Row(
                obs=np.array([value, rng.normal()], np.float32),
                base=ACTION,
                executed=ACTION,
                episode=number,
                tick=tick,
                is_end=tick == length - 1,
            )
            for tick, value in enumerate(along)
        ]
    )


def test_a_progress_value_tells_the_beginning_from_the_end():
    value = ProgressValue.fit([episode(10), episode(30, number=1, seed=1)])
    begin, middle, end = (value(np.array([x, 0.0], np.float32)) for x in (0.0, 1.5, 3.0))
    assert begin < 0.1 < 0.4 < middle < 0.6 < 0.9 < end
    same = ProgressValue.fit([episode(10), episode(30, number=1, seed=1)])
    other = ProgressValue.fit([episode(10)])
    assert value.version == same.version != other.version
    with pytest.raises(ConfigError, match="episodes of success"):
        ProgressValue.fit([])


def test_shaping_by_progress_adds_up_to_the_same_for_every_way():
    value = ProgressValue.fit([episode(10)])
    gamma = 0.9
    reward = ProgressReward(value, gamma=gamma)

    def total(way):
        seen = [np.array([x, 0.0], np.float32) for x in way]
        found = [
            judge(reward, obs=a, next_obs=b, is_done=i == len(seen) - 2).reward
            for i, (a, b) in enumerate(itertools.pairwise(seen))
        ]
        return sum(gamma**i * r for i, r in enumerate(found))

    # Whatever lies between, only where it began counts: the optimum stays what it was.
    begin = -value(np.array([0.3, 0.0], np.float32))
    assert total([0.3, 1.0, 2.0, 3.0]) == pytest.approx(begin)
    assert total([0.3, 2.9, 0.1, 2.0, 1.0]) == pytest.approx(begin)


def test_debouncing_needs_enough_of_the_last_samples():
    debounce = Debounce(3, 4)
    assert [debounce.update(x) for x in (True, True, False, True, True, False, False)] == [
        False, False, False, True, True, False, False,
    ]  # fmt: skip
    debounce.reset()
    assert not debounce.update(True)
    with pytest.raises(ConfigError, match="5 of the last 4"):
        Debounce(5, 4)


def test_a_check_names_the_channel_that_breaks_it():
    checks = {"gripper.width_m": (0.03, 0.05), "tcp.z_m": (0.1, 0.3)}
    assert violated_check(checks, {"gripper.width_m": 0.04, "tcp.z_m": 0.2}) is None
    assert violated_check(checks, {"gripper.width_m": 0.06, "tcp.z_m": 0.2}).startswith(
        "gripper.width_m=0.06 is outside"
    )
    # What was not measured keeps no limit.
    assert "tcp.z_m=nan" in violated_check(checks, {"gripper.width_m": 0.04})
