# SPDX-License-Identifier: Apache-2.0
"""Learning from stored episodes alone: continuable, and a start for what comes after."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unit.session_samples import LAYOUT, OBSERVATION, SPEC, feed, full_session

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.actor_bytes import read_actor
from vla_rl_ros.learning.gym_door import DoorSettings
from vla_rl_ros.learning.gym_files import RunFiles, load_policy
from vla_rl_ros.learning.gym_loop import GymTrainer
from vla_rl_ros.learning.gym_state import RunSettings
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.offline_run import OfflineSettings, OfflineTrainer
from vla_rl_ros.learning.online_settings import OnlineSettings
from vla_rl_ros.learning.online_state import OnlineState
from vla_rl_ros.learning.presets import LearnerConfig, preset
from vla_rl_ros.learning.rows import RowArray
from vla_rl_ros.learning.run_start import read_start
from vla_rl_ros.learning.schedule import ScheduleConfig
from vla_rl_ros.learning.session_rows import SessionRows, session_layout

SMALL = replace(preset("calql"), hidden=(16, 16), batch_size=16, num_candidates=2)


@pytest.fixture(autouse=True)
def _surroundings() -> None:
    from unit import gym_samples  # noqa: F401 - registers its environments

    torch.set_num_threads(1)


def stored(seed: int = 0) -> list[tuple[RowArray, str]]:
    episodes = feed(SessionRows(SPEC), full_session(seed).in_order())
    return [(LAYOUT.pack(episode.rows), episode.state.judge) for episode in episodes]


def trainer(out: Path, updates: int = 20, **changes: Any) -> OfflineTrainer:
    settings = OfflineSettings(updates=updates, snapshot_every=7)
    config = replace(SMALL, **changes)
    made = OfflineTrainer(out, LAYOUT, OBSERVATION.names, config, settings)
    if not made.known_episodes:
        for rows, judge in stored():
            made.add(rows, judge)
    return made


def finished(out: Path, updates: int = 20, **changes: Any) -> dict[str, Any]:
    made = trainer(out, updates, **changes)
    figures = made.run(tell=lambda *_: None)
    made.close()
    return figures


def test_a_policy_comes_out_that_says_what_it_is_for(tmp_path: Path) -> None:
    figures = finished(tmp_path)
    assert figures["is_finished"]
    assert figures["updates"] == 20
    actor = read_actor(tmp_path)
    assert actor.obs_names == OBSERVATION.names
    assert actor.obs_version == OBSERVATION.version
    weights, facts = load_policy(tmp_path / "policy.safetensors")
    assert facts["driver"] == "residual"
    assert np.abs(actor.actor().act(np.zeros(LAYOUT.obs_dim), np.zeros(7))).max() > 0.0
    assert set(weights) == set(actor.weights)
    json.dumps(figures)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole", 30)
    finished(tmp_path / "parts", 12)
    parts = finished(tmp_path / "parts", 30)
    assert parts["q_residual"] == whole["q_residual"]
    ours, theirs = (read_actor(tmp_path / name).weights for name in ("whole", "parts"))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_run_out_of_time_can_be_continued(tmp_path: Path) -> None:
    made = trainer(tmp_path, 10_000)
    figures = made.run(minutes=1e-6, tell=lambda *_: None)
    made.close()
    assert not figures["is_finished"]
    assert figures["updates"] >= 1
    again = trainer(tmp_path, 10_000)
    assert again.num_updates == figures["updates"]
    again.close()


def test_more_episodes_may_come_later(tmp_path: Path) -> None:
    before = finished(tmp_path)["transitions"]
    made = trainer(tmp_path, 25)
    rows = stored(5)[0][0].copy()
    rows["episode"] += 1000
    assert int(rows["episode"][0]) not in made.known_episodes
    made.add(rows)
    assert int(rows["episode"][0]) in made.known_episodes
    figures = made.run(tell=lambda *_: None)
    made.close()
    assert figures["transitions"] == before + len(rows) - 1


def test_other_settings_and_other_observations_are_refused(tmp_path: Path) -> None:
    finished(tmp_path)
    RunFiles(tmp_path).note({"kind": "offline"})
    lines = RunFiles(tmp_path).lines()
    with pytest.raises(ConfigError, match=r"learner\.gamma"):
        trainer(tmp_path, gamma=0.5)
    assert RunFiles(tmp_path).lines() == lines
    other = session_layout(LAYOUT.obs_dim, "another tower")
    with pytest.raises(ConfigError, match="obs_version"):
        OfflineTrainer(tmp_path, other, OBSERVATION.names, SMALL, OfflineSettings())


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    made = OfflineTrainer(tmp_path, LAYOUT, OBSERVATION.names, SMALL, OfflineSettings())
    with pytest.raises(ConfigError, match="no finished episode"):
        made.run(tell=lambda *_: None)
    made.close()


def test_a_new_learner_begins_with_what_was_learned(tmp_path: Path) -> None:
    finished(tmp_path)
    start = read_start(tmp_path, LAYOUT)
    assert len(start.rows) == sum(len(rows) for rows, _ in stored())
    online = replace(SMALL, conservative="never", utd=4, actor_lr=3e-4)
    learner = ResidualLearner(online, LAYOUT.obs_dim, 7, 5)
    start.begin(learner)
    learned = read_actor(tmp_path).weights
    ours = learner.weights()
    assert all(
        np.array_equal(ours[name], learned[name]) for name in ours if name.startswith("actor.")
    )
    assert np.array_equal(ours["obs_mean"], learned["obs_mean"])
    assert learner.num_updates == 0


@pytest.mark.parametrize("change", [{"hidden": (8, 8)}, {"xi": 0.4}, {"algorithm": "td3"}])
def test_networks_that_mean_something_else_do_not_start_a_run(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    finished(tmp_path)
    learner = ResidualLearner(replace(SMALL, **change), LAYOUT.obs_dim, 7, 0)
    before = learner.weights()
    with pytest.raises(ConfigError, match=next(iter(change))):
        read_start(tmp_path, LAYOUT).begin(learner)
    assert all(np.array_equal(before[name], value) for name, value in learner.weights().items())


def test_where_no_run_is_none_can_be_started_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run to start from"):
        read_start(tmp_path / "nothing", LAYOUT)
    assert not (tmp_path / "nothing").exists()


def test_an_online_run_starts_from_an_earlier_one(tmp_path: Path) -> None:
    door = DoorSettings(env_id="Reach-v0", base="unit.gym_samples:weak_base", max_ticks=15)
    config = LearnerConfig(hidden=(16,), batch_size=16, base_episodes=3, critic_only_updates=0)
    run = RunSettings(steps=60, eval_every=60, eval_episodes=2)
    first = GymTrainer(tmp_path / "first", door, config, run, ScheduleConfig())
    first.run()

    later = replace(run, steps=1, init=str(tmp_path / "first"))
    later_config = replace(config, actor_lr=0.0, critic_lr=0.0, base_episodes=0)
    second = GymTrainer(tmp_path / "second", door, later_config, later, ScheduleConfig())
    assert np.array_equal(second.state.offline.rows, first.state.offline.rows)
    began = second.state.learner.weights()
    second.run()
    ended = torch.load(tmp_path / "first" / "snapshot.pt", weights_only=True)["learner"]["nets"]
    flat = second.state.learner.state_dict()["nets"]
    assert torch.equal(flat["actor"]["params"], ended["actor"]["params"])
    assert torch.equal(flat["critic"]["params"], ended["critic"]["params"])
    assert np.array_equal(began["obs_mean"], second.state.learner.weights()["obs_mean"])
    with pytest.raises(ConfigError, match=r"run\.init"):
        GymTrainer(tmp_path / "second", door, later_config, run, ScheduleConfig())


def test_learning_beside_a_robot_starts_from_an_earlier_run(tmp_path: Path) -> None:
    finished(tmp_path / "offline")
    settings = OnlineSettings(init=str(tmp_path / "offline"))
    arguments: dict[str, Any] = {"config": SMALL, "schedule": ScheduleConfig()}
    state = OnlineState(
        tmp_path / "online", LAYOUT, OBSERVATION.names, settings=settings, **arguments
    )
    learned = read_actor(tmp_path / "offline").weights
    assert all(np.array_equal(state.learner.weights()[name], learned[name]) for name in learned)
    num_rows = state.offline.num_rows
    assert num_rows == sum(len(rows) for rows, _ in stored())
    state.close()
    again = OnlineState(
        tmp_path / "online", LAYOUT, OBSERVATION.names, settings=settings, **arguments
    )
    assert again.offline.num_rows == num_rows
    again.close()
