# SPDX-License-Identifier: Apache-2.0
"""Rewards that a user chooses: which ones, for whom, and that a run pays what it says."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.gym_loop import GymTrainer
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.replay import Replay
from vla_rl_ros.learning.reward_config import RewardConfig, reward_config
from vla_rl_ros.learning.reward_plan import RewardPlan
from vla_rl_ros.learning.row_log import read_layout
from vla_rl_ros.learning.rows import END, TERMINATED
from vla_rl_ros.learning.stored_successes import stored_successes
from vla_rl_ros.tools import train_bags
from vla_rl_ros.tools.train import add_parser
from vla_rl_ros.tools.train_residual import make_trainer

SMALL = (
    "learner.hidden=16", "learner.batch_size=16", "learner.base_episodes=6",
    "learner.critic_only_updates=5", "learner.warm_up_steps=0",
)  # fmt: skip
VICE = ("learner.n_step=1", "reward.vice_gradient_penalty=0.1")


@pytest.fixture(autouse=True)
def _surroundings() -> None:
    from unit import gym_samples  # noqa: F401 - registers its environments

    torch.set_num_threads(1)


def parsed(out: Path, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["train", "residual", "--out", str(out), *words])


def trainer(out: Path, *changes: str, steps: int = 150) -> GymTrainer:
    return make_trainer(
        parsed(
            out, "--gym", "Reach-v0", "--base", "unit.gym_samples:weak_base",
            "--max-ticks", "15", "--steps", str(steps), "--eval-episodes", "0",
            "--set", *SMALL, "run.snapshot_every=30", *changes,
        )
    )  # fmt: skip


def finished(out: Path, *changes: str, steps: int = 150) -> Path:
    assert trainer(out, *changes, steps=steps).run()["is_finished"]
    return out


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from unit import gym_samples  # noqa: F401

    return finished(tmp_path_factory.mktemp("earlier") / "run")


@contextmanager
def opened(run: Path) -> Iterator[Replay]:
    layout = read_layout(run / "replay" / "online")
    assert layout is not None
    replay = Replay(run / "replay" / "online", layout, n_step=1, gamma=0.99)
    yield replay
    replay.close()


def test_a_time_penalty_is_a_term_of_every_row(tmp_path: Path) -> None:
    with opened(finished(tmp_path, "reward.time_penalty=0.01")) as replay:
        rows, layout = replay.rows.copy(), replay.layout
    assert layout.reward_terms == ("task", "time")
    assert layout.reward_version == "success 1, time -0.01"
    ticks = rows[(rows["flags"] & END) == 0]
    assert len(ticks) >= 150
    assert (ticks["rewards"][:, 1] == np.float32(-0.01)).all()
    is_won = (ticks["flags"] & TERMINATED) != 0
    assert np.array_equal(ticks["rewards"][:, 0], is_won.astype(np.float32))


def test_an_episode_that_was_cut_off_would_have_gone_on_to_cost() -> None:
    plan = RewardPlan(
        LearnerConfig(gamma=0.9), RewardConfig(time_penalty=0.02), obs_dim=2, obs_version=""
    )
    assert plan.truncation_value == pytest.approx(-0.2)
    assert plan.value_range == pytest.approx((-0.2, 1.0))
    plain = RewardPlan(LearnerConfig(), obs_dim=2, obs_version="")
    assert plain.truncation_value == 0.0
    assert plain.value_range == (0.0, 1.0)


def test_what_an_environment_pays_has_no_known_range() -> None:
    plan = RewardPlan(LearnerConfig(), obs_dim=2, obs_version="", paid="env")
    assert plan.value_range is None


def test_progress_is_learned_from_the_successes_of_an_earlier_run(
    tmp_path: Path, earlier: Path
) -> None:
    changes = (f"reward.progress={earlier}", "reward.progress_scale=0.5")
    with opened(finished(tmp_path, *changes)) as replay:
        rows, layout = replay.rows.copy(), replay.layout
    assert layout.reward_terms == ("task", "progress")
    assert "progress of" in layout.reward_version
    assert "scale 0.5" in layout.reward_version
    assert np.abs(rows["rewards"][:, 1]).max() > 0.01
    plan = RewardPlan(
        LearnerConfig(),
        RewardConfig(progress=str(earlier), progress_scale=0.5),
        obs_dim=layout.obs_dim,
        obs_version=layout.obs_version,
    )
    assert plan.value_range == (-1.0, 1.0)
    # The same reward goes on, another one does not.
    finished(tmp_path, *changes, steps=200)
    with pytest.raises(ConfigError, match="reward_version="):
        trainer(tmp_path, changes[0])


def vice_state(run: Path) -> dict[str, Any]:
    values = torch.load(run / "snapshot.pt", weights_only=True)
    state: dict[str, Any] = values["reward"]
    return state


def test_vice_pays_by_what_it_believes_and_a_stopped_run_ends_as_one_that_was_not(
    tmp_path: Path, earlier: Path
) -> None:
    changes = (*VICE, f"reward.vice={earlier}")
    whole = finished(tmp_path / "whole", *changes)
    parts = tmp_path / "parts"
    for steps in (120, 150):
        finished(parts, *changes, steps=steps)
    ours, theirs = vice_state(whole), vice_state(parts)
    assert ours["num_updates"] == theirs["num_updates"] > 100
    assert ours["rng"] == theirs["rng"]
    assert all(torch.equal(ours["net"][name], theirs["net"][name]) for name in ours["net"])
    with opened(whole) as replay:
        assert replay.layout.reward_terms == ("task",)
        assert "vice " in replay.layout.reward_version
    lines = (whole / "log.jsonl").read_text()
    assert "vice_loss" in lines


def test_a_batch_is_paid_by_vice_and_not_by_what_was_stored(earlier: Path) -> None:
    layout = read_layout(earlier / "replay" / "online")
    assert layout is not None
    plan = RewardPlan(
        LearnerConfig(n_step=1),
        RewardConfig(vice=str(earlier)),
        obs_dim=layout.obs_dim,
        obs_version=layout.obs_version,
    )
    assert plan.vice is not None
    with opened(earlier) as replay:
        batch = {**replay.gather(np.arange(20)), "reward": np.full(20, 9.0, np.float32)}
        assert plan.learn(replay, 8, np.random.default_rng(0))["vice_loss"] > 0.0
    paid = plan.paid(batch)["reward"]
    assert np.array_equal(paid, plan.vice.reward(batch["next_obs"]))


def test_successes_are_whole_episodes_of_the_same_observations(earlier: Path) -> None:
    layout = read_layout(earlier / "replay" / "online")
    assert layout is not None
    found = stored_successes(earlier, layout.obs_dim, layout.obs_version)
    assert found
    for rows in found:
        assert len(set(rows["episode"])) == 1
        assert (rows["flags"][-2] & TERMINATED) != 0
    with pytest.raises(ConfigError, match="another meaning"):
        stored_successes(earlier, layout.obs_dim, "other")


def test_a_run_from_recordings_has_successes_too(tmp_path: Path, earlier: Path) -> None:
    layout = read_layout(earlier / "replay" / "online")
    assert layout is not None
    shutil.copytree(earlier / "replay" / "online", tmp_path / "replay" / "offline")
    found = stored_successes(tmp_path, layout.obs_dim, layout.obs_version)
    assert len(found) == len(stored_successes(earlier, layout.obs_dim, layout.obs_version))
    (tmp_path / "replay" / "offline" / "layout.json").write_text('{"format": 1}')
    with pytest.raises(ConfigError, match="is damaged"):
        stored_successes(tmp_path, layout.obs_dim, layout.obs_version)


def test_a_directory_without_successes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run of 'train residual'"):
        trainer(tmp_path / "out", f"reward.progress={tmp_path}")
    layout = finished(tmp_path / "lost", "learner.base_episodes=1", steps=1)
    kept = read_layout(layout / "replay" / "online")
    assert kept is not None
    for name in ("online", "offline"):
        replay = Replay(layout / "replay" / name, kept, n_step=1, gamma=0.9)
        replay.rewind(0)
        replay.close()
    with pytest.raises(ConfigError, match="no episode that ended in success"):
        trainer(tmp_path / "out", f"reward.progress={layout}")


@pytest.mark.parametrize(
    ("changes", "learner", "paid", "named"),
    [
        (("reward.tip=1",), {}, "success", "time_penalty"),
        (("reward.time_penalty=-0.01",), {}, "success", "time_penalty"),
        (("reward.time_penalty=0.01",), {"gamma": 1.0}, "success", "learner.gamma below 1"),
        (("reward.vice=a", "reward.time_penalty=0.1"), {"n_step": 1}, "success", "in place of"),
        (("reward.vice=a", "reward.progress=b"), {"n_step": 1}, "success", "in place of"),
        (("reward.vice=a",), {}, "success", "learner.n_step=1"),
        (("reward.vice=a",), {"n_step": 1, "conservative": "always"}, "success", "Cal-QL"),
        (("reward.vice=a",), {"n_step": 1}, "env", "--reward env"),
        (("reward.vice=a",), {"n_step": 1, "clip_target": True}, "success", "can be earned"),
        ((), {"clip_target": True}, "env", "can be earned"),
    ],
)
def test_what_makes_no_sense_is_named(
    changes: tuple[str, ...], learner: dict[str, Any], paid: str, named: str
) -> None:
    config = dataclasses.replace(LearnerConfig(), **learner)
    with pytest.raises(ConfigError, match=named):
        reward_config(changes, config, paid=paid)


def test_recordings_alone_cannot_be_paid_by_vice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla_rl_ros.ros.bag_rows.find_episodes", lambda _: [])
    words = ("--bags", str(tmp_path), "--preset", "hil_serl", "--set", "reward.vice=runs/a")
    with pytest.raises(ConfigError, match="leave it out with --bags"):
        train_bags.train(parsed(tmp_path / "out", *words))
