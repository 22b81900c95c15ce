# SPDX-License-Identifier: Apache-2.0
"""What a run of `gym_loop` writes down: lines of its log, the policy, the numbers to print."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_rl_ros.learning.gym_curve import plot_curve
from vla_rl_ros.learning.gym_episodes import Episode, summary
from vla_rl_ros.learning.gym_files import POLICY_FILE, save_policy
from vla_rl_ros.learning.gym_state import RunState
from vla_rl_ros.learning.schedule import Driver

_NUM_PROBES = 64


def note_evaluation(state: RunState, policy: str, episodes: list[Episode]) -> None:
    """Note how held-out starts went, and which of them were won and lost against the base."""
    base = state.progress.base_successes or []
    pairs = list(zip([e.is_success for e in episodes], base, strict=True))
    state.files.note(
        {
            "kind": "evaluation",
            "policy": policy,
            "step": state.progress.steps,
            **summary(episodes),
            "won": sum(mine and not theirs for mine, theirs in pairs),
            "lost": sum(theirs and not mine for mine, theirs in pairs),
            "driver": state.schedule.driver.value,
            "xi": state.schedule.xi,
        }
    )


def note_episode(
    state: RunState, phase: str, driver: Driver, episode: Episode, probed: int
) -> None:
    """Note an episode, and the mean of what was measured since the last one.

    Args:
        state: Of the run.
        phase: In which it was played.
        driver: Who played it.
        episode: How it went.
        probed: Ticks that the base played first.
    """
    line = {
        "kind": "episode",
        "phase": phase,
        "step": state.progress.steps,
        "episode": state.progress.episodes - 1,
        "start": episode.seed,
        "driver": driver.value,
        "success": episode.is_success,
        "ticks": episode.ticks,
        "return": episode.total,
        "base_ticks": probed,
        "rolling_success": _or_none(state.schedule.success(driver)),
        "xi": state.schedule.xi,
        "updates": state.learner.num_updates,
        **_probe(state),
        **{name: total / n for name, (total, n) in state.progress.metric_sums.items()},
        "wall_s": round(state.progress.wall_s, 1),
    }
    state.progress.metric_sums = {}
    state.files.note(line)


def finish(state: RunState, obs_version: str, *, is_finished: bool) -> dict[str, Any]:
    """Write the policy and the curve; returns the numbers to print.

    Args:
        state: Of the run.
        obs_version: What observations mean.
        is_finished: Whether the run is at its end.
    """
    if is_finished:
        state.save()
    driver = _best_driver(state).value
    weights = state.learner.weights() if state.best is None else state.best
    policy = state.files.out / POLICY_FILE
    facts = {
        "driver": driver,
        "steps": str(state.progress.steps),
        "obs_version": obs_version,
    }
    save_policy(policy, weights, facts)
    lines = state.files.lines()
    curve = plot_curve(lines, state.files.out / "learning_curve.png", "train residual")
    last = {line["policy"]: line for line in lines if line["kind"] == "evaluation"}
    return {
        "is_finished": is_finished,
        "steps": state.progress.steps,
        "episodes": state.progress.episodes,
        "updates": state.learner.num_updates,
        "wall_s": round(state.progress.wall_s, 1),
        "driver": driver,
        "fall_backs": state.schedule.num_fall_backs,
        "returns": state.schedule.num_returns,
        "base": last.get("base"),
        "residual": last.get("residual"),
        "checkpoint": str(policy),
        "figure": str(curve),
    }


def _probe(state: RunState) -> dict[str, float]:
    """Values of the first rows, which never change: what an exploding critic shows first."""
    for replay in (state.online, state.offline):
        if state.learner.num_updates and len(replay) >= _NUM_PROBES:
            rows = replay.gather(np.arange(_NUM_PROBES))
            values = state.learner.q(rows["obs"], rows["action"])
            spread = float(values.std(axis=0).mean())
            return {"probe_q": float(values.mean()), "probe_q_spread": spread}
    return {}


def _best_driver(state: RunState) -> Driver:
    """Who is to drive from now on: the residual only if its best window was no worse."""
    schedule = state.schedule
    base = schedule.success(Driver.BASE)
    is_unproven = state.best is None or schedule.best_success < base
    return Driver.BASE if is_unproven else Driver.RESIDUAL


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
