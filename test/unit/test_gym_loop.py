# SPDX-License-Identifier: Apache-2.0
"""Training runs: phases, exact continuation, refusal of what does not fit."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.gym_door import DoorSettings
from vla_rl_ros.learning.gym_files import RunFiles, load_policy
from vla_rl_ros.learning.gym_loop import GymTrainer
from vla_rl_ros.learning.gym_state import RunSettings
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.schedule import ScheduleConfig
from vla_rl_ros.tools import eval_residual, train_residual

torch.set_num_threads(1)

DOOR = DoorSettings(env_id="Reach-v0", base="unit.gym_samples:weak_base", max_ticks=15)
CONFIG = LearnerConfig(
    hidden=(16,), batch_size=16, base_episodes=4, critic_only_updates=20, n_step=3, actor_lr=1e-3,
    warm_up_steps=20, warm_up_noise=0.5,
)  # fmt: skip
RUN = RunSettings(steps=200, eval_every=90, eval_episodes=3, snapshot_every=40)


@pytest.fixture(autouse=True)
def _environments():
    from unit import gym_samples  # noqa: F401 - registers them


def trainer(out, *, config=CONFIG, run=RUN, door=DOOR):
    return GymTrainer(out, door, config, run, ScheduleConfig())


def log_without_clock(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "wall_s"} for line in lines]


def outcome(out):
    """All a run leaves behind that must not depend on when it was interrupted."""
    values = torch.load(out / "snapshot.pt", weights_only=True)
    progress = json.loads(values["progress"])
    progress.pop("wall_s"), progress.pop("last_snapshot")
    learner = values["learner"]
    nets = {key: value for key, value in learner["nets"].items()}
    weights, _ = load_policy(out / "policy.safetensors")
    rows = [(out / "replay" / name / "rows.bin").read_bytes() for name in ("online", "offline")]
    return {
        "log": log_without_clock(out),
        "progress": progress,
        "rng": values["rng"],
        "schedule": values["schedule"],
        "nets": _bytes(nets),
        "policy": {key: value.tobytes() for key, value in weights.items()},
        "rows": rows,
    }


def _bytes(value):
    if isinstance(value, torch.Tensor):
        return value.cpu().numpy().tobytes()
    if isinstance(value, dict):
        return {key: _bytes(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_bytes(part) for part in value]
    return value


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    from unit import gym_samples  # noqa: F401

    out = tmp_path_factory.mktemp("run") / "whole"
    figures = trainer(out).run()
    return out, figures


def test_a_run_goes_through_its_phases_and_leaves_everything_behind(uninterrupted):
    out, figures = uninterrupted
    lines = log_without_clock(out)
    phases = [line["phase"] for line in lines if line["kind"] == "episode"]
    assert phases == sorted(phases, key=["base", "warm_up", "online"].index)
    assert phases.count("base") == 4
    assert figures["is_finished"]
    assert figures["steps"] >= 200
    online = sum(line["ticks"] for line in lines if line.get("phase") == "online")
    assert figures["updates"] == 20 + CONFIG.utd * online
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["policy"] for line in evaluations[:2]] == ["base", "residual"]
    # Nothing was learned by the actor yet: the same starts, won and lost alike.
    assert evaluations[1]["success"] == evaluations[0]["success"]
    assert evaluations[1]["mean_steps"] == evaluations[0]["mean_steps"]
    assert all(np.isfinite(v) for line in lines for v in line.values() if isinstance(v, float))
    assert (out / "learning_curve.png").stat().st_size > 1000


@pytest.mark.parametrize("after", [3, 27, 40])
def test_a_run_stopped_and_continued_equals_an_uninterrupted_one(tmp_path, uninterrupted, after):
    calls = 0

    class KilledError(Exception):
        pass

    def kill(_phase, _done):
        nonlocal calls
        calls += 1
        if calls == after:
            raise KilledError

    with pytest.raises(KilledError):
        trainer(tmp_path / "run").run(tell=kill)
    assert trainer(tmp_path / "run").run()["is_finished"]
    assert outcome(tmp_path / "run") == outcome(uninterrupted[0])


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from unit import gym_samples, test_gym_loop
from vla_rl_ros.learning.row_log import RowLog
append, left = RowLog.append, int(sys.argv[2])
def counted(log, rows):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return append(log, rows)
RowLog.append = counted
test_gym_loop.trainer(Path(sys.argv[1])).run()
"""


def test_a_run_killed_within_an_episode_continues_to_the_same_result(
    tmp_path, uninterrupted, pytestconfig
):
    root = pytestconfig.rootpath
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(tmp_path / "run"), "97"],
        cwd=root / "test",
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'test'}"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert trainer(tmp_path / "run").run()["is_finished"]
    assert outcome(tmp_path / "run") == outcome(uninterrupted[0])


def test_a_run_out_of_time_says_so_and_goes_on(tmp_path, uninterrupted):
    figures = trainer(tmp_path / "run").run(minutes=0.0)
    assert not figures["is_finished"]
    assert trainer(tmp_path / "run").run()["is_finished"]
    assert outcome(tmp_path / "run") == outcome(uninterrupted[0])


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    longer = dataclasses.replace(RUN, steps=260)
    figures = trainer(tmp_path / "run", run=longer).run()
    assert figures["steps"] >= 260
    first = log_without_clock(uninterrupted[0])
    assert log_without_clock(tmp_path / "run")[: len(first)] == first


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": dataclasses.replace(CONFIG, xi=0.3)}, "learner.xi=0.15"),
        ({"run": dataclasses.replace(RUN, seed=4)}, "run.seed=0"),
        ({"door": dataclasses.replace(DOOR, max_ticks=9)}, "door.max_ticks=15"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, uninterrupted, changes, sentence):
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    with pytest.raises(ConfigError, match=sentence):
        trainer(tmp_path / "run", **changes)


def test_a_damaged_snapshot_is_refused(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    snapshot = tmp_path / "run" / "snapshot.pt"
    snapshot.write_bytes(snapshot.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"snapshot.pt: cannot be continued"):
        RunFiles(tmp_path / "run").read()
    snapshot.unlink()
    with pytest.raises(ConfigError, match="rows but no snapshot"):
        trainer(tmp_path / "run")


def test_a_method_without_offline_data_keeps_the_base_out_of_its_online_buffer(tmp_path):
    config = dataclasses.replace(
        CONFIG, algorithm="sac", offline_part=0.0, offline_init="calql", offline_updates=10,
        conservative="offline", warm_up_steps=30, warm_up_noise=0.0, critic_only_updates=0,
    )  # fmt: skip
    run = trainer(tmp_path / "run", config=config)
    run.run()
    lines = log_without_clock(tmp_path / "run")
    warm_up = [line for line in lines if line.get("phase") == "warm_up"]
    assert sum(line["ticks"] for line in warm_up) >= 30
    assert len({line["updates"] for line in warm_up}) == 1  # acts, learns nothing
    stored = {
        name: set(np.fromfile(path / "rows.bin", run.state.online.layout.dtype)["episode"])
        for name in ("online", "offline")
        for path in [tmp_path / "run" / "replay" / name]
    }
    assert stored["offline"] == {0, 1, 2, 3}
    assert min(stored["online"]) == 4


def test_warm_up_wanders_around_the_base_within_the_bound(tmp_path):
    run = trainer(tmp_path / "run")
    run.run()
    lines = log_without_clock(tmp_path / "run")
    phases = {line["episode"]: line["phase"] for line in lines if line["kind"] == "episode"}
    rows = np.fromfile(tmp_path / "run/replay/online/rows.bin", run.state.online.layout.dtype)
    acted = rows["tick"] < np.array([(rows["episode"] == e).sum() - 1 for e in rows["episode"]])
    moved = {"base": [], "warm_up": []}
    for row in rows[acted]:
        if phases[row["episode"]] in moved:
            moved[phases[row["episode"]]].append(np.abs(row["executed"] - row["base"]).max())
    assert max(moved["base"]) == 0.0
    assert len(moved["warm_up"]) >= 20
    assert np.median(moved["warm_up"]) > 0.0
    assert max(moved["warm_up"]) <= CONFIG.xi + 1e-6


@pytest.mark.parametrize("xi_start", [0.0, 0.01])
def test_warm_up_wanders_as_far_as_the_residual_may_go_one_day(tmp_path, xi_start):
    run = GymTrainer(
        tmp_path / "run", DOOR, CONFIG, RUN, ScheduleConfig(rule="ramp", xi_start=xi_start)
    )
    assert run.state.learner.xi == pytest.approx(xi_start)
    run.run()
    lines = log_without_clock(tmp_path / "run")
    warm_up = {line["episode"] for line in lines if line.get("phase") == "warm_up"}
    rows = np.fromfile(tmp_path / "run/replay/online/rows.bin", run.state.online.layout.dtype)
    rows = rows[np.isin(rows["episode"], list(warm_up))]
    assert 0.05 < np.abs(rows["executed"] - rows["base"]).max() <= CONFIG.xi + 1e-6


def test_probing_ticks_are_not_stored(tmp_path):
    config = dataclasses.replace(CONFIG, probe_part=0.8)
    run = trainer(tmp_path / "run", config=config)
    run.run()
    lines = log_without_clock(tmp_path / "run")
    probed = {line["episode"]: line for line in lines if line.get("base_ticks")}
    assert probed
    rows = np.fromfile(tmp_path / "run/replay/online/rows.bin", run.state.online.layout.dtype)
    for episode, line in probed.items():
        ticks = rows["tick"][rows["episode"] == episode]
        assert not len(ticks) or ticks.min() == line["base_ticks"]


def test_the_command_lines_train_continue_and_evaluate(tmp_path, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    train_residual.add_residual_parser(commands)
    common = ["--gym", "unit.gym_samples:Reach-v0", "--base", "unit.gym_samples:weak_base",
              "--max-ticks", "15"]  # fmt: skip
    words = ["residual", *common, "--out", str(tmp_path / "run"), "--steps", "120",
             "--eval-episodes", "3", "--set", "learner.hidden=16", "learner.base_episodes=3",
             "learner.critic_only_updates=10", "learner.batch_size=16",
             "schedule.rule=ratchet"]  # fmt: skip

    def run(arguments):
        options = parser.parse_args(arguments)
        assert options.run(options) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    figures = run(words)
    assert figures["is_finished"]
    assert figures["base"]["episodes"] == 3
    assert run(words)["steps"] == figures["steps"]  # nothing is left to do

    parser = argparse.ArgumentParser()
    eval_residual.add_residual_parser(parser.add_subparsers(required=True))

    def evaluated(*policy):
        return run(["residual", *common, "--episodes", "4", "--seed", "2", *policy])

    base = evaluated("--policy", "base")
    assert {"success", "wilson_low", "wilson_high", "episodes", "mean_steps"} <= base.keys()
    untrained = evaluated("--policy", "residual")
    assert (untrained["success"], untrained["mean_steps"]) == (base["success"], base["mean_steps"])
    ours = evaluated("--policy", "residual", "--out", str(tmp_path / "run"))
    named = evaluated("--policy", figures["checkpoint"])
    assert (ours["success"], ours["mean_steps"]) == (named["success"], named["mean_steps"])
    noisy = evaluated("--policy", "residual", "--explore")
    assert noisy == evaluated("--policy", "residual", "--explore")  # noise belongs to the start
    assert noisy["explore"]
    assert noisy["mean_steps"] != untrained["mean_steps"]
    with pytest.raises(ConfigError, match="is not a policy"):
        evaluated("--policy", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="there is none"):
        evaluated("--policy", "base", "--explore")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("learner.nothing=1", "nothing=1"),
        ("learner.n_step=many", "'many' is no"),
        ("xi=1", "not of the form"),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path, change, sentence):
    import argparse

    parser = argparse.ArgumentParser()
    train_residual.add_residual_parser(parser.add_subparsers())
    options = parser.parse_args(
        ["residual", "--gym", "Reach-v0", "--base", "unit.gym_samples:weak_base",
         "--out", str(tmp_path / "run"), "--set", change]
    )  # fmt: skip
    with pytest.raises(ConfigError, match=sentence):
        options.run(options)


def test_a_residual_that_never_proved_itself_is_not_handed_out(tmp_path, uninterrupted):
    """A window is 20 episodes: after fewer, the policy to use is the base."""
    short = dataclasses.replace(RUN, steps=90, eval_episodes=0)
    figures = trainer(tmp_path / "run", run=short).run()
    assert figures["driver"] == "base"
    weights, facts = load_policy(tmp_path / "run" / "policy.safetensors")
    assert facts["driver"] == "base"
    assert "actor.weight_0" in weights
