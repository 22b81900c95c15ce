# SPDX-License-Identifier: Apache-2.0
"""The gymnasium environments."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.spec import ACTION_DIM, STATE_CHANNELS
from vla_rl_ros.sim import gym_env
from vla_rl_ros.sim.gym_env import ENV_IDS, CellEnv
from vla_rl_ros.sim.layouts import sample_layout
from vla_rl_ros.sim.tasks import TASKS, Task
from vla_rl_ros.sim.variants import SceneConfig

PRESS = np.array([0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0], dtype=np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[CellEnv]:
    made = CellEnv("button", images=False)
    yield made
    made.close()


def test_every_task_is_registered_under_its_name() -> None:
    gym_env.register_envs()
    assert ENV_IDS[Task.LIFT] == "vla_rl_ros/Lift-v0"
    assert set(ENV_IDS.values()) <= set(gymnasium.registry)


@pytest.mark.parametrize("task", list(Task))
def test_gymnasiums_own_checker_is_content(task: Task) -> None:
    made = gymnasium.make(ENV_IDS[task], images=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made.unwrapped, skip_render_check=True)
    made.close()


def test_the_checker_is_content_with_images_too() -> None:
    config = SceneConfig(image_px=32, multisamples=0)
    made = CellEnv("lift", config=config, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made, skip_render_check=True)
    observation, _ = made.reset(seed=0)
    assert {name: im.shape for name, im in observation["image"].items()} == {
        "wrist": (32, 32, 3),
        "front": (32, 32, 3),
    }
    assert np.array_equal(made.render(), observation["image"]["front"])
    made.close()


def test_a_seed_gives_the_layout_it_gives_in_the_cell(env: CellEnv) -> None:
    env.reset(seed=5)
    layout = sample_layout(Task.BUTTON, SceneConfig(), np.random.default_rng(5))
    assert np.array_equal(env.sim.layout.button_xy_m, layout.button_xy_m)
    env.reset()
    assert not np.array_equal(env.sim.layout.button_xy_m, layout.button_xy_m)


def test_equal_seeds_and_actions_give_equal_episodes(env: CellEnv) -> None:
    runs = []
    for _ in range(2):
        observation, _ = env.reset(seed=3)
        env.action_space.seed(3)
        states = [observation["state"]]
        states += [env.step(env.action_space.sample())[0]["state"] for _ in range(5)]
        runs.append(np.array(states))
    assert np.array_equal(runs[0], runs[1])


def test_info_names_channels_objects_and_instruction(env: CellEnv) -> None:
    observation, info = env.reset(seed=0)
    assert info["state_channels"] == STATE_CHANNELS
    assert len(info["state_channels"]) == observation["state"].size
    assert observation["state"].dtype == np.float32
    assert info["instruction"] == TASKS[Task.BUTTON].instruction
    assert info["success"] is False
    assert {name: pose.shape for name, pose in info["objects"].items()} == dict.fromkeys(
        ("cube", "button", "hole", "peg"), (7,)
    )
    assert info["objects"]["button"][:2] == pytest.approx(env.sim.layout.button_xy_m)


def test_success_ends_the_episode_with_reward_one(env: CellEnv) -> None:
    env.reset(seed=0)
    env.sim.data.qpos[env.sim.ids.button_qpos] = -0.0099
    _, reward, terminated, truncated, info = env.step(np.zeros(ACTION_DIM, dtype=np.float32))
    # The spring has pushed the cap back within the tick.
    assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
    target_m = np.append(env.sim.layout.button_xy_m, 0.06)
    for _ in range(100):
        offset_m = target_m - env.sim.tcp().position_m
        action = PRESS.copy()
        if np.linalg.norm(offset_m[:2]) > 0.01:
            action[:3] = np.clip([*offset_m[:2], max(offset_m[2], 0.0)], -0.01, 0.01) / 0.02
        _, reward, terminated, truncated, info = env.step(action)
        if terminated:
            break
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)


def test_the_time_limit_truncates(env: CellEnv) -> None:
    env.reset(seed=0)
    limit = round(TASKS[Task.BUTTON].time_limit_s / 0.1)
    stay = np.array([0.0] * 6 + [1.0], dtype=np.float32)
    for tick in range(1, limit + 1):
        _, reward, terminated, truncated, _ = env.step(stay)
        assert (reward, terminated, truncated) == (0.0, False, tick == limit)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="lift"):
        CellEnv("drawer")
    with pytest.raises(ConfigError, match="peg_tight"):
        CellEnv("lift", config="tight")
    with pytest.raises(ConfigError, match="rgb_array"):
        CellEnv("lift", render_mode="human")
