# SPDX-License-Identifier: Apache-2.0
"""Learning beside a robot: phases, who drives, what a kill leaves behind. No robot, no clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vla_rl_ros.core.errors import ConfigError, ReplayError
from vla_rl_ros.core.spec import ACTION_DIM
from vla_rl_ros.core.verdict import judge_code
from vla_rl_ros.learning.acting import ResidualActor
from vla_rl_ros.learning.actor_bytes import read_actor
from vla_rl_ros.learning.actor_observation import ActorObservationSpec
from vla_rl_ros.learning.gym_files import RunFiles
from vla_rl_ros.learning.online_curve import plot_online
from vla_rl_ros.learning.online_run import OnlineRun, Stage
from vla_rl_ros.learning.online_settings import OnlineSettings
from vla_rl_ros.learning.online_state import OnlineState
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.rows import Row, Source
from vla_rl_ros.learning.schedule import Driver, ScheduleConfig
from vla_rl_ros.learning.session_rows import session_layout

SEEN = ActorObservationSpec()
LAYOUT = session_layout(SEEN.dim, SEEN.version)
CONFIG = LearnerConfig(
    hidden=(16, 16), batch_size=16, base_episodes=3, warm_up_steps=0, critic_only_updates=5
)
SCHEDULE = ScheduleConfig(window=6, least_episodes=3, base_turn=2)


def begun(
    out: Path,
    config: LearnerConfig = CONFIG,
    schedule: ScheduleConfig = SCHEDULE,
    **settings: object,
) -> OnlineRun:
    told: list[str] = []
    state = OnlineState(
        out,
        LAYOUT,
        SEEN.names,
        config=config,
        schedule=schedule,
        settings=OnlineSettings(**settings),
    )
    run = OnlineRun(state, told.append)
    run.told = told
    return run


def episode(number: int, *, source: Source = Source.BASE, success: bool = True, ticks: int = 30):
    rng = np.random.default_rng(number)
    rows = [
        Row(
            obs=rng.standard_normal(SEEN.dim).astype(np.float32),
            base=rng.uniform(-1, 1, ACTION_DIM).astype(np.float32),
            executed=rng.uniform(-1, 1, ACTION_DIM).astype(np.float32),
            rewards=(float(success and tick == ticks - 1),),
            source=source,
            episode=number,
            seed=number,
            tick=tick,
            stamp_ns=number * 10**10 + tick * 10**8,
            is_terminated=success and tick == ticks - 1,
            is_truncated=not success and tick == ticks - 1,
        )
        for tick in range(ticks)
    ]
    end = replace(rows[-1], tick=ticks, is_end=True, is_terminated=False, is_truncated=False)
    return LAYOUT.pack([*rows, end])


def helped(number: int, source: Source, first: int = 20):
    """An episode that a human brought to its good end, from tick `first` on for five ticks."""
    rows = episode(number, source=source)
    rows["source"][first : first + 5] = Source.HUMAN
    return rows


def learn(run: OnlineRun) -> int:
    """Do every update that is due."""
    return sum(1 for _ in iter(run.update, False))


def into_online(run: OnlineRun, first: int = 0) -> int:
    for number in range(first, first + CONFIG.base_episodes):
        run.store(episode(number, success=number % 2 == 0))
    for _ in range(CONFIG.critic_only_updates):
        assert run.update()
    assert run.stage is Stage.ONLINE
    return first + CONFIG.base_episodes


def until_the_base_takes_over(run: OnlineRun, worse: Callable[[int], np.ndarray]) -> int:
    """Have the residual drive episodes that `worse` makes of their numbers; returns the next."""
    for number in range(3):
        run.store(episode(number))
    learn(run)
    for number in range(3, 20):
        if run.driver is not Driver.RESIDUAL:
            assert "the base takes over" in run.told[-1]
            return number
        run.store(worse(number))
    raise AssertionError("the residual still drives")


def test_the_base_drives_until_the_learner_is_ready(tmp_path: Path) -> None:
    run = begun(tmp_path)
    assert (run.stage, run.driver, run.update()) == (Stage.BASE, Driver.BASE, False)
    for number in range(3):
        run.store(episode(number, success=number == 1))
    assert (run.stage, run.driver) == (Stage.CRITIC, Driver.BASE)
    assert learn(run) == CONFIG.critic_only_updates
    assert (run.stage, run.driver) == (Stage.ONLINE, Driver.RESIDUAL)
    assert run.is_urgent
    # The actor has not moved: what goes out first is the base itself.
    actor = ResidualActor(run.weights(0).weights)
    assert not np.any(actor.act(np.ones(SEEN.dim), np.zeros(ACTION_DIM)))


def test_updates_keep_pace_with_executed_ticks(tmp_path: Path) -> None:
    run = begun(tmp_path, max_utd=0.5)
    number = into_online(run)
    run.store(episode(number, source=Source.RESIDUAL, ticks=30))
    assert learn(run) == 15
    assert run.metrics()["utd"] == 0.5


def test_only_successes_of_the_base_and_what_a_human_did_are_demonstrations(
    tmp_path: Path,
) -> None:
    run = begun(tmp_path)
    number = into_online(run)
    offline = run.state.offline
    assert set(offline.rows["episode"].tolist()) == {0, 2}
    run.store(episode(number, source=Source.HUMAN))
    run.store(episode(number + 1, source=Source.RESIDUAL))
    assert set(offline.rows["episode"].tolist()) == {0, 2, number}
    assert run.metrics()["intervention_rate"] == pytest.approx(30 / 150)


def test_all_rows_are_learned_from_online_and_those_of_a_human_also_as_demonstrations(
    tmp_path: Path,
) -> None:
    run = begun(tmp_path, replace(CONFIG, n_step=3))
    number = into_online(run)
    before = (len(run.state.online), len(run.state.offline))
    rng = np.random.default_rng(5)
    num_ticks = num_human = 0
    for _ in range(10):
        rows = episode(number, success=bool(rng.random() < 0.5), source=Source.RESIDUAL)
        is_helped = np.append(rng.random(len(rows) - 1) < rng.choice([0.0, 0.3, 1.0]), False)
        rows["source"][is_helped] = Source.HUMAN
        run.store(rows)
        number += 1
        num_ticks += len(rows) - 1
        num_human += int(is_helped.sum())
    online, offline = run.state.online, run.state.offline
    assert 0 < num_human < num_ticks
    assert len(online) - before[0] == num_ticks
    assert len(offline) - before[1] == num_human
    drawn = offline.gather(np.arange(before[1], len(offline)))
    helped = [row for row in online.rows if row["source"] == Source.HUMAN]
    np.testing.assert_array_equal(drawn["obs"], [row["obs"] for row in helped])
    # The sums are those of the whole episodes, and a restart does not change what is drawn.
    shared = {row["obs"].tobytes(): row for row in helped}
    whole = online.gather(np.arange(len(online)))
    returns = [
        value
        for obs, value in zip(whole["obs"], whole["mc_return"], strict=True)
        if obs.tobytes() in shared
    ]
    np.testing.assert_array_equal(drawn["mc_return"], returns)
    run.state.save()
    run.state.close()
    again = begun(tmp_path, replace(CONFIG, n_step=3))
    assert len(again.state.offline) == len(offline)


def test_a_residual_that_is_worse_hands_over_to_the_base_and_says_so(tmp_path: Path) -> None:
    run = begun(tmp_path)
    number = until_the_base_takes_over(
        run, partial(episode, source=Source.RESIDUAL, success=False)
    )
    assert run.is_urgent
    assert run.weights(0).driver is Driver.BASE
    assert run.metrics()["fall_backs"] == 1.0
    for _ in range(SCHEDULE.base_turn):
        run.store(episode(number))
        number += 1
    assert run.driver is Driver.RESIDUAL


def test_the_log_and_the_rows_of_a_continued_run_say_who_judged(tmp_path: Path) -> None:
    judges = ["ground_truth", "classifier 0123 lift", "", "operator"]
    for number, judge in enumerate(judges):
        run = begun(tmp_path)
        rows = episode(number)
        rows["judge"] = judge_code(judge)
        run.store(rows, judge)
        run.weights(0)
        run.state.close()
    run = begun(tmp_path)
    found = [run.state.judges.name(code) for code in run.state.online.rows["judge"][::31].tolist()]
    run.state.close()
    lines = [line for line in run.state.files.lines() if line["kind"] == "episode"]
    assert [line["judge"] for line in lines] == found == judges


def test_a_residual_that_a_human_always_helps_hands_over_to_the_base(tmp_path: Path) -> None:
    run = begun(tmp_path)
    until_the_base_takes_over(run, partial(helped, source=Source.RESIDUAL))
    assert run.metrics()["success.all"] == 1.0


def test_an_episode_is_the_failure_of_whoever_was_helped(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.store(helped(0, Source.BASE))
    run.store(episode(1))
    run.store(helped(2, Source.BASE, first=0))
    learn(run)
    assert run.metrics()["success.base"] == pytest.approx(1 / 3)
    run.store(helped(3, Source.RESIDUAL))
    run.store(episode(4, source=Source.RESIDUAL))
    metrics = run.metrics()
    assert metrics["success.residual"] == 0.5
    assert metrics["success.base"] == pytest.approx(1 / 3)
    lines = [line for line in run.state.files.lines() if line["kind"] == "episode"]
    assert [line["driver"] for line in lines] == ["base"] * 3 + ["residual"] * 2
    assert plot_online(lines, tmp_path / "curve.png", "helped").is_file()


@pytest.mark.parametrize("resting", [0, 4])
def test_an_episode_that_a_human_played_alone_says_nothing_of_a_policy(
    tmp_path: Path, resting: int
) -> None:
    run = begun(tmp_path)
    rows = episode(0, source=Source.HUMAN)
    rows["source"][:resting] = Source.NOBODY
    run.store(rows)
    assert "success.base" not in run.metrics()
    number = into_online(run, 1)
    before = run.metrics()
    rows = episode(number, source=Source.HUMAN, success=False)
    rows["source"][:resting] = Source.NOBODY
    run.store(rows)
    after = run.metrics()
    assert (after["episodes"], before["episodes"]) == (number + 1, number)
    for name in ("success.base", "success.residual", "success.best"):
        assert after.get(name) == before.get(name)
    assert run.state.files.lines()[-1]["driver"] == "human"


def test_help_in_the_warm_up_says_nothing_of_a_policy(tmp_path: Path) -> None:
    run = begun(tmp_path, replace(CONFIG, warm_up_steps=60))
    for number in range(3):
        run.store(episode(number))
    run.store(helped(3, Source.RESIDUAL))
    assert run.stage is Stage.WARM_UP
    assert run.metrics()["success.base"] == 1.0
    assert "success.residual" not in run.metrics()


def test_a_killed_run_goes_on_at_the_step_of_its_weights_and_loses_no_row(
    tmp_path: Path,
) -> None:
    run = begun(tmp_path, max_utd=0.0)
    number = into_online(run)
    for _ in range(7):
        run.update()
    sent = run.weights(123)
    saved = run.state.learner.num_updates
    # After the save: an episode arrives and more is learned, then the process is gone.
    run.store(episode(number, source=Source.RESIDUAL))
    run.update()
    num_rows = run.state.online.num_rows
    run.state.close()

    again = begun(tmp_path, max_utd=0.0)
    assert again.state.learner.num_updates == saved
    assert again.state.progress.published == sent.version
    assert again.state.online.num_rows == num_rows
    assert again.state.last_epoch == number
    # The episode that was not in the snapshot counts, once.
    assert again.state.progress.episodes == number + 1
    assert again.state.schedule.success(Driver.RESIDUAL) == 1.0
    ours, theirs = again.state.learner.weights(), sent.weights
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    numbers = [line["episode"] for line in lines if line["kind"] == "episode"]
    assert numbers == list(range(number + 1))


def test_the_policy_file_lets_the_base_drive_until_the_residual_is_proven(tmp_path: Path) -> None:
    run = begun(tmp_path)
    number = into_online(run)
    run.weights(0)
    kept = read_actor(tmp_path)
    assert (kept.driver, kept.obs_version, kept.obs_names) == (
        Driver.BASE,
        SEEN.version,
        SEEN.names,
    )
    for offset in range(SCHEDULE.window):
        run.store(episode(number + offset, source=Source.RESIDUAL))
    run.weights(0)
    assert read_actor(tmp_path).driver is Driver.RESIDUAL


def test_what_the_base_did_is_forgotten_where_a_method_asks_for_it(tmp_path: Path) -> None:
    config = replace(
        CONFIG, offline_part=0.0, offline_init="td", offline_updates=3, warm_up_steps=40
    )
    run = begun(tmp_path, config, max_utd=0.0)
    for number in range(3):
        run.store(episode(number))
    assert run.stage is Stage.OFFLINE
    assert learn(run) == 3
    assert (run.stage, run.driver) == (Stage.WARM_UP, Driver.RESIDUAL)
    run.store(episode(3, source=Source.RESIDUAL))
    run.store(episode(4, source=Source.RESIDUAL))
    assert run.stage is Stage.CRITIC
    for _ in range(CONFIG.critic_only_updates - run.state.progress.critic_updates):
        assert run.update()
    # What was executed since the base ended is there.
    assert run.state.progress.first_online == 3 * 30
    assert (run.stage, run.update()) == (Stage.ONLINE, True)


@pytest.mark.parametrize("offline_init", ["none", "td"])
def test_who_goes_on_from_another_run_waits_for_the_first_episode(
    tmp_path: Path, offline_init: str
) -> None:
    config = replace(
        CONFIG, offline_part=0.0, offline_init=offline_init, warm_up_steps=0,
        critic_only_updates=0, offline_updates=3 * (offline_init == "td"),
    )  # fmt: skip
    first = begun(tmp_path / "first", config)
    for number in range(CONFIG.base_episodes):
        first.store(episode(number))
    learn(first)
    first.weights(0)
    first.state.close()
    config = replace(config, base_episodes=0)
    run = begun(tmp_path / "second", config, init=str(tmp_path / "first"), max_utd=0.0)
    assert (run.stage, run.update()) == (Stage.ONLINE, False)
    run.store(episode(0, source=Source.RESIDUAL))
    assert run.update()


def test_critics_keep_pace_with_a_warm_up_that_wanders_around_the_base(tmp_path: Path) -> None:
    run = begun(tmp_path, replace(CONFIG, warm_up_steps=60, critic_only_updates=40))
    for number in range(3):
        run.store(episode(number))
    assert (run.stage, run.driver, learn(run)) == (Stage.WARM_UP, Driver.RESIDUAL, 0)
    sent = run.weights(0)
    assert (sent.wander_std, sent.wander_ticks) == (CONFIG.warm_up_noise, CONFIG.warm_up_ticks)
    assert read_actor(tmp_path).wander_std == 0.0
    run.store(episode(3, source=Source.RESIDUAL))
    assert learn(run) == 20
    run.store(episode(4, source=Source.RESIDUAL))
    assert (run.stage, run.driver) == (Stage.CRITIC, Driver.BASE)
    assert learn(run) == 20
    assert run.weights(0).wander_std == 0.0
    # How it went while wandering says nothing of the residual.
    assert "success.residual" not in run.metrics()


def test_warm_up_wanders_as_far_as_the_residual_may_go_one_day(tmp_path: Path) -> None:
    schedule = ScheduleConfig(rule="ramp", xi_start=0.01)
    run = begun(tmp_path, replace(CONFIG, warm_up_steps=60), schedule)
    assert run.weights(0).actor().xi == pytest.approx(0.01)
    for number in range(3):
        run.store(episode(number))
    assert run.stage is Stage.WARM_UP
    assert run.weights(0).actor().xi == pytest.approx(CONFIG.xi)


def test_a_run_of_other_settings_or_observations_is_not_continued(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.weights(0)
    run.state.close()
    with pytest.raises(ConfigError, match=r"learner\.gamma"):
        begun(tmp_path, replace(CONFIG, gamma=0.9))


@pytest.mark.parametrize(
    ("gamma", "error"), [(CONFIG.gamma, ReplayError), (0.9, ConfigError)], ids=["same", "other"]
)
def test_a_start_that_is_refused_leaves_the_log_of_the_run_that_goes_on(
    tmp_path: Path, gamma: float, error: type[Exception]
) -> None:
    run = begun(tmp_path)
    run.weights(0)
    run.state.files.note({"kind": "episode"})
    lines = run.state.files.lines()
    with pytest.raises(error):
        begun(tmp_path, replace(CONFIG, gamma=gamma))
    assert run.state.files.lines() == lines
    run.state.close()
    # Whoever may go on from the snapshot logs again what came after it.
    begun(tmp_path).state.close()
    assert run.state.files.lines() == lines[:-1]


def test_a_start_that_failed_keeps_nobody_from_another_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run to start from"):
        begun(tmp_path, init=str(tmp_path / "nothing"))
    layout = tmp_path / "replay/offline/layout.json"
    before = layout.read_text()
    layout.write_text("{}")
    with pytest.raises(ConfigError, match="holds rows with"):
        begun(tmp_path)
    layout.write_text(before)
    begun(tmp_path).state.close()


def test_a_run_of_before_a_setting_existed_is_continued(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, worse_p=0.04, return_p=0.04)
    run = begun(tmp_path, schedule=schedule)
    run.weights(0)
    run.state.close()
    values = RunFiles(tmp_path).read()
    settings = json.loads(values["begun"])
    for name in ("learner.xi_parts", "learner.acting_tau", "schedule.return_p"):
        del settings[name]
    for name in ("xi_parts", "acting_tau"):
        del values["learner"]["config"][name]
    del values["learner"]["nets"]["xi_parts"]
    RunFiles(tmp_path).save({**values, "begun": json.dumps(settings)})
    with pytest.raises(ConfigError, match=r"schedule\.return_p=0\.04"):
        begun(tmp_path, schedule=replace(schedule, return_p=0.02))
    begun(tmp_path, schedule=schedule).state.close()


def test_metrics_show_values_of_transitions_that_never_change(tmp_path: Path) -> None:
    run = begun(tmp_path)
    into_online(run)
    metrics = run.metrics()
    assert metrics["probe_q.min"] <= metrics["probe_q.mean"] <= metrics["probe_q.max"]
    assert metrics["update.critic_loss"] >= 0.0
    assert not any(name.startswith("update.") for name in run.metrics())
