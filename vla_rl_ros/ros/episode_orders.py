# SPDX-License-Identifier: Apache-2.0
"""What the next episode shall be: task, start, instruction and seed, from parameters and the past.

Called by the supervisor, which owns the parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vla_rl_ros.core.episode import EpisodeState, planned_task
from vla_rl_ros.core.reset_plan import ResetMode, ResetPlan, Start
from vla_rl_ros.ros.autorun import AutorunLedger
from vla_rl_ros.ros.episode_ports import EpisodeOrder
from vla_rl_ros.ros.share import read_task
from vla_rl_ros.ros.supervisor_config import SupervisorConfig


class EpisodeOrders:
    """Makes orders and remembers outcomes."""

    def __init__(
        self,
        plan: ResetPlan,
        config: Callable[[], SupervisorConfig],
        count_seed: Callable[[int], None],
        warn: Callable[[str], object],
    ) -> None:
        """Start with nothing done.

        Args:
            plan: Decides how the next episode begins.
            config: Present parameters.
            count_seed: Told the seed of the next order.
            warn: Told in a sentence what the operator should know.
        """
        self.plan = plan
        self._config, self._count_seed = config, count_seed
        self._autorun = AutorunLedger(warn)

    def due(self) -> EpisodeOrder | None:
        """The next episode that nobody has to ask for, None when there is none left."""
        config = self._config()
        num_begun = self._autorun.num_begun
        if num_begun >= config.autorun_episodes:
            return None
        task = planned_task(config.tasks, config.episodes_per_task, num_begun)
        self._autorun.begin()
        return self._make(task)

    def asked(self) -> EpisodeOrder:
        """The episode that an operator's request stands for."""
        return self._make(self._config().task)

    def undoing(self, order: EpisodeOrder) -> EpisodeOrder:
        """The order for the task that undoes that of another."""
        return self._of(replace(order.start, task=order.config.undone_by), order.seed)

    def note(self, state: EpisodeState) -> None:
        """Take the outcome of an episode."""
        if state.outcome is not None:
            self.plan.note(state.task, read_task(state.task).undone_by, state.outcome)

    def told(self, task: str, config: SupervisorConfig) -> str:
        """What the policy is told; the task that undoes another has its own sentence.

        Args:
            task: Task name.
            config: Parameters, perhaps new ones that are not in force yet.
        """
        own = read_task(task).instruction
        is_undoing = self.plan.mode is ResetMode.PAIR and task != config.task
        return own if is_undoing else config.instruction or own

    def _make(self, task: str) -> EpisodeOrder:
        seed = self._config().seed
        order = self._of(self.plan.next(task, read_task(task).undone_by), seed)
        self._count_seed((seed + 1) % 2**31)
        return order

    def _of(self, start: Start, seed: int) -> EpisodeOrder:
        return EpisodeOrder(
            task=start.task,
            config=read_task(start.task),
            instruction=self.told(start.task, self._config()),
            seed=seed,
            start=start,
        )
