# SPDX-License-Identifier: Apache-2.0
"""Residual learning in anybody's environment: phases, updates, evaluation, snapshots.

Base episodes, offline updates, warm-up, critic-only updates, then acting and learning by turns:
the settings of the learner say how much of each. All housekeeping happens between episodes, and
every random stream is in the snapshot: a run that was killed and started again gives the same
numbers as one that was not, if environment and base depend on nothing but the start. Called by
`vla-rl-ros train residual`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vla_rl_ros.learning.acting import ResidualActor
from vla_rl_ros.learning.exploration import Wanderer
from vla_rl_ros.learning.gym_curve import plot_curve
from vla_rl_ros.learning.gym_door import Door, DoorSettings
from vla_rl_ros.learning.gym_episodes import (
    Actor,
    Episode,
    Recorder,
    evaluate,
    play,
    summary,
)
from vla_rl_ros.learning.gym_files import POLICY_FILE, save_policy
from vla_rl_ros.learning.gym_state import RunSettings, RunState
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.replay import Replay, SymmetricSampler
from vla_rl_ros.learning.rewards import reward_of
from vla_rl_ros.learning.rows import Row, as_demonstration
from vla_rl_ros.learning.schedule import Advice, Driver, ScheduleConfig
from vla_rl_ros.learning.transitions import Transitions

_NUM_PROBES = 64


class _OutOfTimeError(Exception):
    """The caller's time is over; everything is saved."""


class GymTrainer:
    """One run.

    Attributes:
        state: What it remembers.
    """

    def __init__(
        self,
        out: Path,
        door: DoorSettings,
        config: LearnerConfig,
        run: RunSettings,
        schedule: ScheduleConfig,
    ) -> None:
        """Begin, or continue what lies in `out`; see `RunState` for arguments and errors."""
        self._run, self._config = run, config
        self._door, self._judge = Door(door), Door(door)
        self.state = RunState(
            out,
            (self._door.obs_dim, self._door.action_dim),
            obs_version=self._door.obs_version,
            door=door,
            config=config,
            run=run,
            schedule=schedule,
        )
        self._mixed = SymmetricSampler(self.state.online, self.state.offline, config.offline_part)
        self._tell: Callable[[str, int], None] = lambda _phase, _count: None

    def run(
        self,
        *,
        minutes: float | None = None,
        tell: Callable[[str, int], None] | None = None,
    ) -> dict[str, Any]:
        """Train to the end, or for a while.

        Args:
            minutes: Stop after this time, continuable; None for no limit.
            tell: Called with the name of the phase and how much of it is done.

        Returns:
            Numbers to print.
        """
        self._begin_s, self._before_s = time.monotonic(), self.state.progress.wall_s
        self._limit_s = None if minutes is None else 60.0 * minutes
        self._tell = tell or self._tell
        try:
            return self._finish(is_finished=self._phases())
        finally:
            self.close()

    @property
    def totals(self) -> dict[str, int]:
        """How much of each phase there is to be done, by the names `tell` hears."""
        return {
            "base episodes": self._config.base_episodes,
            "offline updates": self._config.offline_updates,
            "warm-up steps": self._config.warm_up_steps,
            "critic updates": self._config.critic_only_updates,
            "steps": self._run.steps,
        }

    def close(self) -> None:
        """Free environments and files; idempotent."""
        self.state.close()
        self._door.close()
        self._judge.close()

    def _phases(self) -> bool:
        """Do of each phase what its counter says is missing; returns whether all is done."""
        try:
            self._base_phase()
            self._offline_phase()
            self._warm_up()
            self._critic_phase()
            self._online_phase()
        except _OutOfTimeError:
            return False
        return True

    def _base_phase(self) -> None:
        state, config = self.state, self._config
        if state.progress.base_successes is None and self._run.eval_episodes:
            episodes = evaluate(self._judge, None, self._held_out())
            state.progress.base_successes = [episode.is_success for episode in episodes]
            self._note_evaluation("base", episodes)
        # What a method does not keep online it sees offline only (WSRL, arXiv 2412.07762).
        keeps = config.offline_part > 0.0 or config.offline_init == "none"
        while state.progress.base_episodes < config.base_episodes and self._has_steps():
            rows: list[Row] = []
            episode = self._play(None, "base", rows.append)
            packed = state.online.layout.pack(rows)
            state.progress.base_episodes += 1
            (state.online if keeps else state.offline).append(packed)
            if keeps and episode.is_success:
                state.offline.append(as_demonstration(packed))
            self._between("base episodes", state.progress.base_episodes)
        if not state.progress.has_normaliser:
            state.progress.has_normaliser = True
            seen = [replay.rows["obs"] for replay in (state.online, state.offline)]
            if sum(map(len, seen)):
                state.learner.fit_normaliser(np.concatenate(seen))

    def _offline_phase(self) -> None:
        state, config = self.state, self._config
        while state.progress.offline_updates < config.offline_updates and len(self._all()):
            self._update(self._all().sample(config.batch_size, state.rng), offline=True)
            state.progress.offline_updates += 1
            self._between("offline updates", state.progress.offline_updates)

    def _warm_up(self) -> None:
        state = self.state
        while state.progress.warm_up_steps < self._config.warm_up_steps and self._has_steps():
            config, rng = self._config, state.rng
            bound = ResidualActor(state.learner.widest_weights()).bound
            actor: Actor = (
                Wanderer(config.warm_up_noise, config.warm_up_ticks, bound, rng)
                if config.warm_up_noise > 0.0
                else state.learner.act
            )
            episode = self._play(actor, "warm_up", self._store)
            state.progress.warm_up_steps += episode.ticks
            self._between("warm-up steps", state.progress.warm_up_steps)

    def _critic_phase(self) -> None:
        state, config = self.state, self._config
        while state.progress.critic_updates < config.critic_only_updates and len(self._all()):
            self._update(self._all().sample(config.batch_size, state.rng), critic_only=True)
            state.progress.critic_updates += 1
            self._between("critic updates", state.progress.critic_updates)

    def _online_phase(self) -> None:
        state = self.state
        while True:
            self._evaluate_if_due()
            if not self._has_steps():
                return
            driver = state.schedule.driver
            actor = state.learner.act if driver is Driver.RESIDUAL else None
            self._play(actor, "online", self._store, after_tick=self._learn)
            self._between("steps", state.progress.steps)

    # Parts of them.

    def _play(
        self,
        actor: Actor | None,
        phase: str,
        store: Callable[[Row], object],
        after_tick: Callable[[], object] | None = None,
    ) -> Episode:
        state, config, progress = self.state, self._config, self.state.progress
        probe_limit = int(config.probe_part * progress.longest_episode)
        is_probing = actor is not None and phase == "online" and probe_limit > 0
        base_ticks = int(state.rng.integers(probe_limit + 1)) if is_probing else 0
        reward = reward_of(config, self._door.settings.reward)
        episode = play(
            self._door,
            actor,
            progress.episodes,
            held_out=False,
            base_ticks=base_ticks,
            recorder=Recorder(store, progress.episodes, reward),
            after_tick=after_tick,
        )
        driver = Driver.BASE if actor is None else Driver.RESIDUAL
        # An episode the base ended before the residual's turn tells nothing of the residual.
        if phase != "warm_up" and episode.ticks > base_ticks:
            advice = state.schedule.record(driver, is_success=episode.is_success)
            if phase == "online":
                self._follow(advice)
        progress.episodes += 1
        progress.steps += episode.ticks
        progress.longest_episode = max(progress.longest_episode, episode.ticks)
        self._note_episode(phase, driver, episode, base_ticks)
        return episode

    def _follow(self, advice: Advice) -> None:
        state = self.state
        if advice.is_best:
            state.best = state.learner.weights()
        if advice.restore_best and state.best is not None:
            state.learner.load(state.best)
        state.learner.xi = advice.xi
        if advice.reason:
            state.files.note(
                {"kind": "schedule", "step": state.progress.steps, "reason": advice.reason}
            )

    def _store(self, row: Row) -> None:
        self.state.online.append([row])

    def _learn(self) -> None:
        config = self._config
        if len(self._mixed):
            for _ in range(config.utd):
                self._update(self._mixed.sample(config.batch_size, self.state.rng))

    def _all(self) -> SymmetricSampler | Replay:
        """What the phases before acting learn from."""
        online, offline = self.state.online, self.state.offline
        if not len(online) or not len(offline):
            return online if len(online) else offline
        return SymmetricSampler(online, offline, max(self._config.offline_part, 0.5))

    def _update(
        self, batch: Transitions, *, critic_only: bool = False, offline: bool = False
    ) -> None:
        found = self.state.learner.update(batch, critic_only=critic_only, offline=offline)
        sums = self.state.progress.metric_sums
        for name, value in found.items():
            total, count = sums.get(name, (0.0, 0))
            sums[name] = (total + value, count + 1)

    def _has_steps(self) -> bool:
        return self.state.progress.steps < self._run.steps

    def _between(self, phase: str, done: int) -> None:
        """Between two episodes or updates: tell, save, and stop if it is time."""
        progress, now_s = self.state.progress, time.monotonic()
        progress.wall_s = self._before_s + now_s - self._begin_s
        self._tell(phase, done)
        is_late = self._limit_s is not None and now_s - self._begin_s > self._limit_s
        behind = progress.steps + self.state.learner.num_updates - progress.last_snapshot
        if is_late or behind >= self._run.snapshot_every:
            self.state.save()
        if is_late:
            raise _OutOfTimeError

    # What is measured and noted.

    def _held_out(self) -> range:
        return range(self._run.eval_seed, self._run.eval_seed + self._run.eval_episodes)

    def _evaluate_if_due(self) -> None:
        progress = self.state.progress
        is_due = progress.steps >= progress.next_evaluation or not self._has_steps()
        if not is_due or not self._run.eval_episodes or progress.steps == progress.evaluated_at:
            return
        progress.evaluated_at = progress.steps
        every = self._run.eval_every
        progress.next_evaluation = (progress.steps // every + 1) * every
        episodes = evaluate(
            self._judge, partial(self.state.learner.act, deterministic=True), self._held_out()
        )
        self._note_evaluation("residual", episodes)

    def _note_evaluation(self, policy: str, episodes: list[Episode]) -> None:
        base = self.state.progress.base_successes or []
        pairs = list(zip([e.is_success for e in episodes], base, strict=True))
        self.state.files.note(
            {
                "kind": "evaluation",
                "policy": policy,
                "step": self.state.progress.steps,
                **summary(episodes),
                "won": sum(mine and not theirs for mine, theirs in pairs),
                "lost": sum(theirs and not mine for mine, theirs in pairs),
                "driver": self.state.schedule.driver.value,
                "xi": self.state.schedule.xi,
            }
        )

    def _note_episode(self, phase: str, driver: Driver, episode: Episode, probed: int) -> None:
        state = self.state
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
            **self._probe(),
            **{name: total / n for name, (total, n) in state.progress.metric_sums.items()},
            "wall_s": round(state.progress.wall_s, 1),
        }
        state.progress.metric_sums = {}
        state.files.note(line)

    def _probe(self) -> dict[str, float]:
        """Values of the first rows, which never change: what an exploding critic shows first."""
        for replay in (self.state.online, self.state.offline):
            if self.state.learner.num_updates and len(replay) >= _NUM_PROBES:
                rows = replay.gather(np.arange(_NUM_PROBES))
                values = self.state.learner.q(rows["obs"], rows["action"])
                spread = float(values.std(axis=0).mean())
                return {"probe_q": float(values.mean()), "probe_q_spread": spread}
        return {}

    def _best_driver(self) -> Driver:
        """Who is to drive from now on: the residual only if its best window was no worse."""
        schedule = self.state.schedule
        base = schedule.success(Driver.BASE)
        is_unproven = self.state.best is None or schedule.best_success < base
        return Driver.BASE if is_unproven else Driver.RESIDUAL

    def _finish(self, *, is_finished: bool) -> dict[str, Any]:
        state = self.state
        if is_finished:
            state.save()
        driver = self._best_driver().value
        weights = state.learner.weights() if state.best is None else state.best
        policy = state.files.out / POLICY_FILE
        facts = {
            "driver": driver,
            "steps": str(state.progress.steps),
            "obs_version": self._door.obs_version,
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


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
