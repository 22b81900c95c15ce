# SPDX-License-Identifier: Apache-2.0
"""Learning beside a robot that does not wait: phases, updates, who drives, what is published.

Base episodes, offline updates, warm-up and critic-only updates come first, as in `gym_loop`; the
base drives while the learner is not ready. Nothing here has a clock or a thread: the node
`learner` hands episodes in, asks for one update after the other and takes weights when it likes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from vla_rl_ros.learning.actor_bytes import ActorWeights, write_actor
from vla_rl_ros.learning.gym_files import POLICY_FILE
from vla_rl_ros.learning.online_batches import Batches
from vla_rl_ros.learning.online_metrics import run_metrics
from vla_rl_ros.learning.online_policy import present_weights, weights_to_keep
from vla_rl_ros.learning.online_state import OnlineState
from vla_rl_ros.learning.rows import TERMINATED, RowArray, Source, as_demonstration
from vla_rl_ros.learning.schedule import Advice, Driver
from vla_rl_ros.learning.transitions import Transitions

_SMALLEST_XI_STEP = 1e-6


class Stage(enum.Enum):
    """What is being done, in this order."""

    BASE = "base episodes"
    OFFLINE = "offline updates"
    WARM_UP = "warm-up"
    CRITIC = "critic updates"
    ONLINE = "online"


class OnlineRun:
    """One run.

    Attributes:
        state: What it remembers.
        is_urgent: Whether who drives, or how far, changed since weights were taken last.
    """

    def __init__(self, state: OnlineState, tell: Callable[[str], None] = lambda _: None) -> None:
        """Begin, or go on.

        Args:
            state: What is remembered.
            tell: Told in a sentence each what the operator should know.
        """
        self.state, self._tell = state, tell
        self._batches = Batches(state)
        self._metrics: dict[str, list[float]] = {}
        self._told = self.driver
        self.is_urgent = True
        self._look()

    @property
    def stage(self) -> Stage:
        """What is being done now."""
        progress, config = self.state.progress, self.state.config
        if progress.base_episodes < config.base_episodes:
            return Stage.BASE
        if progress.offline_updates < config.offline_updates:
            return Stage.OFFLINE
        if progress.warm_up_ticks < config.warm_up_steps:
            return Stage.WARM_UP
        if progress.critic_updates < config.critic_only_updates:
            return Stage.CRITIC
        return Stage.ONLINE

    @property
    def driver(self) -> Driver:
        """Who is to drive."""
        if self.stage is Stage.ONLINE:
            return self.state.schedule.driver
        return Driver.RESIDUAL if self.stage is Stage.WARM_UP else Driver.BASE

    def store(self, rows: RowArray, judge: str = "") -> None:
        """Take an episode that has ended; its rows are safe when this returns.

        Args:
            rows: All of it.
            judge: The name behind the code in the rows.
        """
        self.state.store(rows, judge)
        self._look()

    def update(self) -> bool:
        """Do one gradient step, if one is due.

        Returns:
            Whether there was one.
        """
        stage, progress = self.stage, self.state.progress
        is_early = stage is Stage.WARM_UP and not self._may_update_early()
        if stage is Stage.BASE or is_early or not self._batches.has_any:
            return False
        self._fit_normaliser()
        if stage is Stage.OFFLINE:
            self._step(self._batches.early(), offline=True)
            progress.offline_updates += 1
        elif stage in (Stage.WARM_UP, Stage.CRITIC):
            self._step(self._batches.early(), critic_only=True)
            progress.critic_updates += 1
        elif not self._may_update():
            return False
        else:
            self._step(self._batches.online())
            progress.online_updates += 1
        if self.stage is not stage:
            self._note_stage()
        return True

    def weights(self, made_ns: int) -> ActorWeights:
        """Weights to act with, saved beside everything else before they are given out.

        A learner that is killed afterwards goes on from the very step whose weights act.

        Args:
            made_ns: Time of the last update.
        """
        state = self.state
        state.progress.published += 1
        state.save()
        write_actor(state.files.out / POLICY_FILE, weights_to_keep(state))
        self.is_urgent = False
        is_warming_up = self.stage is Stage.WARM_UP
        return present_weights(state, self.driver, made_ns, is_warming_up=is_warming_up)

    def metrics(self) -> dict[str, float]:
        """Numbers to watch, named; `update.*` are means over the updates since the last call."""
        found = run_metrics(self.state, self.driver, self._metrics)
        self._metrics = {}
        return found

    # Episodes.

    def _look(self) -> None:
        """Learn from how stored episodes went, those of before a kill included."""
        while (rows := self.state.next_episode()) is not None:
            self._follow(rows)
            self.state.progress.episodes += 1
        if self.driver is not self._told:
            self._told, self.is_urgent = self.driver, True

    def _follow(self, rows: RowArray) -> None:
        state, progress, stage = self.state, self.state.progress, self.stage
        # The closing row is no tick.
        ticks = rows[:-1]
        is_success = bool((rows["flags"] & TERMINATED).any())
        num_human = int((ticks["source"] == Source.HUMAN).sum())
        driver = _driver_of(ticks)
        progress.ticks += len(ticks)
        progress.human_ticks += num_human
        progress.successes += is_success
        if num_human:
            self._show(as_demonstration(rows, only_human=True))
        elif stage is Stage.BASE and is_success:
            self._show(as_demonstration(rows))
        if stage is Stage.BASE:
            progress.base_episodes += 1
        elif stage is Stage.WARM_UP:
            progress.warm_up_ticks += len(ticks)
        elif stage is Stage.ONLINE:
            progress.online_ticks += len(ticks)
        # Who needed help did not do the task; how it went in the warm-up says nothing of learning.
        if driver is not None and stage is not Stage.WARM_UP:
            self._obey(state.schedule.record(driver, is_success=is_success and not num_human))
        state.files.note(
            {
                "kind": "episode",
                "stage": stage.value,
                "episode": int(rows["episode"][0]),
                "start": int(rows["seed"][0]),
                "driver": "human" if driver is None else driver.value,
                "success": is_success,
                "judge": state.judges.name(int(rows["judge"][0])),
                "ticks": len(ticks),
                "human_ticks": num_human,
                "step": progress.ticks,
                "updates": state.learner.num_updates,
                "xi": state.schedule.xi,
            }
        )
        if self.stage is not stage:
            self._note_stage()

    def _show(self, rows: RowArray) -> None:
        """Add an episode to what was demonstrated, once."""
        offline = self.state.offline
        # By stamp, too: an earlier run may have episodes of the same numbers.
        is_same = offline.rows["episode"] == rows["episode"][0]
        if not (is_same & (offline.rows["stamp_ns"] == rows["stamp_ns"][0])).any():
            offline.append(rows)

    def _obey(self, advice: Advice) -> None:
        state = self.state
        if advice.is_best and self.stage is Stage.ONLINE:
            state.best = state.learner.weights()
        if advice.restore_best and state.best is not None:
            state.learner.load(state.best)
            self.is_urgent = True
        if abs(advice.xi - state.learner.xi) > _SMALLEST_XI_STEP:
            state.learner.xi = advice.xi
            self.is_urgent = True
        if advice.reason:
            self._tell(advice.reason)
            state.files.note(
                {"kind": "schedule", "step": state.progress.ticks, "reason": advice.reason}
            )

    def _note_stage(self) -> None:
        state = self.state
        if self.stage in (Stage.WARM_UP, Stage.ONLINE) and state.progress.first_online < 0:
            state.progress.first_online = len(state.online)
        self.is_urgent = True
        self._told = self.driver
        self._tell(f"{self.stage.value} after {state.learner.num_updates} updates")

    # Updates.

    def _may_update_early(self) -> bool:
        """Critic updates need not wait for the end of the warm-up; they keep pace with it."""
        progress, config = self.state.progress, self.state.config
        part = progress.warm_up_ticks / max(1, config.warm_up_steps)
        return progress.critic_updates < part * config.critic_only_updates

    def _may_update(self) -> bool:
        progress, limit = self.state.progress, self.state.settings.max_utd
        has_data = self._batches.has_online
        is_within = limit == 0.0 or progress.online_updates < limit * progress.online_ticks
        return has_data and is_within

    def _step(
        self, batch: Transitions, *, critic_only: bool = False, offline: bool = False
    ) -> None:
        state = self.state
        batch = state.reward.paid(batch)
        found = state.learner.update(batch, critic_only=critic_only, offline=offline)
        found |= state.reward.learn(state.online, state.config.batch_size, state.rng)
        for name, value in found.items():
            self._metrics.setdefault(name, []).append(value)

    def _fit_normaliser(self) -> None:
        state = self.state
        if not state.progress.has_normaliser:
            state.progress.has_normaliser = True
            state.learner.fit_normaliser(state.online.rows["obs"])


def _driver_of(ticks: RowArray) -> Driver | None:
    """Whose turn an episode was, None where a human played it alone."""
    sources = frozenset(ticks["source"].tolist())
    if Source.RESIDUAL in sources:
        return Driver.RESIDUAL
    # One in which nobody ever drove was the turn of a base that had nothing to say.
    return None if Source.HUMAN in sources and Source.BASE not in sources else Driver.BASE
