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
from vla_rl_ros.learning.gym_door import Door, DoorSettings
from vla_rl_ros.learning.gym_episodes import (
    Actor,
    Episode,
    Recorder,
    evaluate,
    play,
)
from vla_rl_ros.learning.gym_notes import finish, note_episode, note_evaluation
from vla_rl_ros.learning.gym_state import RunSettings, RunState
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.replay import Replay, SymmetricSampler
from vla_rl_ros.learning.reward_config import RewardConfig
from vla_rl_ros.learning.reward_plan import RewardPlan
from vla_rl_ros.learning.rows import Row, as_demonstration
from vla_rl_ros.learning.schedule import Advice, Driver, ScheduleConfig
from vla_rl_ros.learning.transitions import Transitions


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
        reward: RewardConfig | None = None,
    ) -> None:
        """Begin, or continue what lies in `out`; see `RunState` for arguments and errors."""
        self._run, self._config = run, config
        self._door, self._judge = Door(door), Door(door)
        self._reward = RewardPlan(
            config,
            reward,
            obs_dim=self._door.obs_dim,
            obs_version=self._door.obs_version,
            paid=door.reward,
            seed=run.seed,
        )
        self.state = RunState(
            out,
            (self._door.obs_dim, self._door.action_dim),
            obs_version=self._door.obs_version,
            door=door,
            config=config,
            run=run,
            schedule=schedule,
            reward=self._reward,
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
            is_finished = self._phases()
            return finish(self.state, self._door.obs_version, is_finished=is_finished)
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
            note_evaluation(self.state, "base", episodes)
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
        episode = play(
            self._door,
            actor,
            progress.episodes,
            held_out=False,
            base_ticks=base_ticks,
            recorder=Recorder(store, progress.episodes, self._reward.episode()),
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
        note_episode(state, phase, driver, episode, base_ticks)
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
        state, size = self.state, self._config.batch_size
        batch = self._reward.paid(batch)
        found = state.learner.update(batch, critic_only=critic_only, offline=offline)
        found |= self._reward.learn(state.online, size, state.rng)
        sums = state.progress.metric_sums
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

    # What is measured.

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
        note_evaluation(self.state, "residual", episodes)
