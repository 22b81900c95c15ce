# SPDX-License-Identifier: Apache-2.0
"""Other people's environments: vectors, ranges, success, starts, and the base left as it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from unit import gym_samples

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.reward import make_reward
from vla_rl_ros.learning.gym_door import Door, DoorSettings
from vla_rl_ros.learning.gym_episodes import Recorder, evaluate, paired_difference, play, summary
from vla_rl_ros.learning.gym_starts import MetaWorldStarts, find_layer
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import PRESETS
from vla_rl_ros.learning.rows import RowLayout, Source
from vla_rl_ros.learning.transitions import rows_to_transitions

WEAK = DoorSettings(env_id="Reach-v0", base="unit.gym_samples:weak_base")


def settings(**changes):
    return dataclasses.replace(WEAK, **changes)


def raw_episode(door, actor, start=3):
    """What reached the environment in one episode."""
    episode = play(door, actor, start, held_out=True)
    return episode, np.array(door.env.unwrapped.actions)


def by_hand(base, start=3, limit=25):
    """The base alone, without any of our code in between."""
    env = gym_samples.ReachEnv()
    observation, _ = env.reset(seed=start)
    act = base(env)
    for _ in range(limit):
        observation, _, _, _, info = env.step(act(observation))
        if info["success"]:
            break
    return np.array(env.actions), info["success"]


@pytest.mark.parametrize("name", ["weak_base", "Pulse"])
@pytest.mark.parametrize("preset", ["pld", "pld_paper", "wsrl", "calql"])
def test_an_untrained_residual_is_the_base_bit_for_bit(name, preset):
    door = Door(settings(base=f"unit.gym_samples:{name}"))
    learner = ResidualLearner(
        dataclasses.replace(PRESETS[preset], hidden=(8,)), door.obs_dim, door.action_dim, seed=1
    )

    def actor(obs, base):
        return learner.act(obs, base, deterministic=True)

    expected, is_success = by_hand(getattr(gym_samples, name))
    for tried in (None, actor):
        episode, actions = raw_episode(door, tried)
        assert actions.dtype == expected.dtype
        assert actions.tobytes() == expected.tobytes()
        assert episode.is_success == is_success
    door.close()


def test_only_the_corrected_channel_differs_from_the_base():
    door = Door(WEAK)
    expected, _ = by_hand(gym_samples.weak_base)
    _, actions = raw_episode(door, lambda obs, base: np.array([0.0, -0.1], np.float32))
    assert actions[0, 0] == expected[0, 0]
    assert actions[0, 1] == pytest.approx(expected[0, 1] - 0.05, abs=1e-6)
    door.close()


def test_what_is_executed_never_leaves_the_range_of_the_environment():
    door = Door(WEAK)
    _, actions = raw_episode(door, lambda obs, base: np.array([5.0, -5.0], np.float32))
    np.testing.assert_allclose(actions, [[4.0, 0.0]] * len(actions))
    door.close()


def test_rows_hold_executed_and_base_action_and_the_last_observation():
    door = Door(settings(max_ticks=3))
    rows = []
    push = np.array([0.25, 0.0], np.float32)
    play(door, lambda obs, base: push, 1, held_out=False, base_ticks=1,
         recorder=Recorder(rows.append, 7, make_reward()))  # fmt: skip
    assert [(row.tick, row.is_truncated, row.is_end) for row in rows] == [
        (1, False, False), (2, True, False), (3, False, True),
    ]  # fmt: skip  # the probing tick is not stored
    assert {row.episode for row in rows} == {7}
    for row in rows[:-1]:
        assert row.source == Source.RESIDUAL
        np.testing.assert_allclose(row.executed, np.clip(row.base + push, -1, 1), atol=1e-7)
    layout = RowLayout(obs_dim=4, action_dim=2)
    found = rows_to_transitions(layout.pack(rows), layout, 1, 0.9)
    np.testing.assert_array_equal(found["next_base"][-1], rows[-1].base)
    assert found["discount"][-1] == pytest.approx(0.9)
    door.close()


def test_success_ends_the_episode_with_reward_one():
    door = Door(settings(base="unit.gym_samples:good_base"))
    rows = []
    episode = play(door, None, 1, held_out=True, recorder=Recorder(rows.append, 0, make_reward()))
    assert (episode.is_success, episode.total) == (True, 1.0)
    assert rows[-2].is_terminated
    assert rows[-2].rewards == (1.0,)
    door.close()


def test_a_dictionary_of_vectors_is_put_together_in_the_order_of_its_keys():
    door, flat = Door(settings(env_id="ReachDict-v0")), Door(WEAK)
    moment, _ = door.start(5, held_out=True)
    same, _ = flat.start(5, held_out=True)
    np.testing.assert_array_equal(moment.obs, same.obs[[2, 3, 0, 1]])
    door.close()
    flat.close()


def test_images_need_features_or_an_explicit_no():
    with pytest.raises(ConfigError, match="--features"):
        Door(settings(env_id="ReachImage-v0"))
    blind = Door(settings(env_id="ReachImage-v0", features="none"))
    seeing = Door(settings(env_id="ReachImage-v0", features="unit.gym_samples:mean_colour"))
    assert (blind.obs_dim, seeing.obs_dim) == (4, 5)
    moment, _ = seeing.start(0, held_out=True)
    moment, _ = seeing.step(moment, moment.base)
    assert moment.obs[-1] == 1.0
    blind.close()
    seeing.close()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"env_id": "NoSuch-v0"}, "NoSuch"),
        ({"env_id": "no_such_module:Reach-v0"}, "no_such_module"),
        ({"env_arguments": "[1]"}, "env_arguments.* is not a JSON object"),
        ({"env_arguments": '{"limits": 3}'}, "limits"),
        ({"base": "unit.gym_samples"}, "MODULE:FACTORY"),
        ({"base": "unit.gym_samples:nobody"}, "no function nobody"),
        ({"base": "no_such_module:x"}, "no_such_module"),
        ({"base": "unit.gym_samples:not_finite"}, "finite"),
        ({"env_id": "ReachDiscrete-v0"}, "bounded Box"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Door(settings(**changes))


def test_an_environment_without_success_needs_a_return_instead():
    silent = Door(settings(env_id="ReachSilent-v0"))
    with pytest.raises(ConfigError, match="--success-return"):
        play(silent, None, 0, held_out=True)
    silent.close()
    door = Door(settings(env_id="ReachSilent-v0", reward="env", success_return=-5.0))
    episode = play(door, None, 0, held_out=True)
    assert episode.ticks == 25
    assert episode.is_success == (episode.total >= -5.0)
    door.close()


def test_starts_are_paired_and_those_of_training_are_others():
    door = Door(WEAK)
    base = evaluate(door, None, range(6))
    pushed = evaluate(door, lambda obs, b: np.full(2, -0.5, np.float32), range(6))
    assert paired_difference(pushed, base)["is_paired"]
    assert not paired_difference(evaluate(door, None, range(1, 7)), base)["is_paired"]
    training = {play(door, None, number, held_out=False).seed for number in range(20)}
    assert len(training) == 20
    assert min(training) >= 2**30
    other = Door(settings(seed=1))
    assert play(other, None, 0, held_out=False).seed not in training
    door.close()
    other.close()


def test_a_summary_has_the_wilson_interval():
    door = Door(WEAK)
    episodes = evaluate(door, None, range(10))
    numbers = summary(episodes)
    assert numbers["episodes"] == 10
    assert 0.0 <= numbers["wilson_low"] <= numbers["success"] <= numbers["wilson_high"] <= 1.0
    door.close()


class FakeTask:
    def __init__(self, number):
        self.number = number


class FakeMetaWorld:
    """An environment that draws its own task at every reset unless told otherwise."""

    spec = type("Spec", (), {"kwargs": {"env_name": "push-v3"}})()

    def __init__(self):
        self.samples, self.task = True, None

    def toggle_sample_tasks_on_reset(self, on):
        self.samples = on

    @property
    def unwrapped(self):
        return self

    def set_task(self, task):
        self.task = task

    def reset(self, *, seed=None):
        if self.samples:
            self.task = FakeTask(-1)
        return np.array([self.task.number]), {}


def test_tasks_of_metaworld_are_pinned_and_thirty_to_fortynine_are_held_out(monkeypatch):
    env = FakeMetaWorld()
    assert find_layer(env, "toggle_sample_tasks_on_reset") is env
    starts = MetaWorldStarts(env, 0)
    monkeypatch.setattr(
        starts, "_of_seed", lambda seed: [FakeTask(1000 * seed + index) for index in range(50)]
    )
    held_out = [starts.reset(env, number, held_out=True) for number in range(50)]
    tasks = [int(observation[0]) for observation, _ in held_out]
    assert tasks[:20] == list(range(30, 50))
    assert tasks[20:40] == list(range(1030, 1050))
    assert len(set(tasks)) == len({seed for _, seed in held_out}) == 50
    trained = {int(starts.reset(env, n, held_out=False)[0][0]) for n in range(4000)}
    assert trained == {1000 * seed + index for seed in range(10) for index in range(30)}
    again = MetaWorldStarts(env, 0)
    monkeypatch.setattr(again, "_of_seed", lambda seed: [FakeTask(i) for i in range(50)])
    assert [again.reset(env, n, held_out=False)[1] for n in range(9)] == [
        starts.reset(env, n, held_out=False)[1] for n in range(9)
    ]
