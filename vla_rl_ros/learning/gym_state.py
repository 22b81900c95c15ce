# SPDX-License-Identifier: Apache-2.0
"""Everything a run of `gym_loop` would have to remember, and how it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.verdict import ENVIRONMENT
from vla_rl_ros.learning.gym_door import DoorSettings
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.reward_plan import RewardPlan
from vla_rl_ros.learning.rows import RowLayout
from vla_rl_ros.learning.run_memory import PhaseProgress, RunMemory, begun_with
from vla_rl_ros.learning.schedule import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Length of a run and what is measured on the way."""

    steps: int = param(20_000, doc="Environment steps, those of the base included.", low=1)
    seed: int = param(0, doc="Of weights, noise, batches and starts.", low=0)
    eval_every: int = param(2500, doc="Steps between evaluations.", low=1)
    eval_episodes: int = param(50, doc="Held-out starts per evaluation, 0 for none.", low=0)
    eval_seed: int = param(0, doc="First held-out start.", low=0)
    snapshot_every: int = param(1000, doc="Steps or updates between snapshots.", low=1)
    execution: str = param("eager", doc="Of the gradient steps.", choices=("eager", "compiled"))
    init: str = param("", doc="Directory of an earlier run to start from; empty for none.")

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


@dataclass(slots=True, kw_only=True)
class Progress(PhaseProgress):
    """How far a run has come; JSON values. `episodes` is also the number of the next one.

    Attributes:
        steps: Environment steps, without evaluation.
        warm_up_steps: Of the third phase.
        longest_episode: In ticks.
        next_evaluation: Step of it.
        evaluated_at: Step of the last one.
        last_snapshot: Steps and updates together at that time.
        base_successes: Of the held-out starts, by start; None before it was measured.
        metric_sums: By metric, sum and number of its values since the last episode.
        wall_s: Time spent.
    """

    steps: int = 0
    warm_up_steps: int = 0
    longest_episode: int = 1
    next_evaluation: int = 0
    evaluated_at: int = -1
    last_snapshot: int = 0
    base_successes: list[bool] | None = None
    metric_sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    wall_s: float = 0.0


class RunState(RunMemory[Progress]):
    """Memory of a run; its `offline` holds successes of the base, and probing ticks use its `rng`.

    A run that was stopped goes on from its snapshot: what came after that comes again.
    """

    def __init__(
        self,
        out: Path,
        sizes: tuple[int, int],
        *,
        obs_version: str,
        door: DoorSettings,
        config: LearnerConfig,
        run: RunSettings,
        schedule: ScheduleConfig,
        reward: RewardPlan,
    ) -> None:
        """Begin, or continue what lies in `out`.

        Args:
            out: Directory of the run.
            sizes: Width of an observation, and channels of an action.
            obs_version: What observations mean.
            door: Environment and base.
            config: Of the learner.
            run: Of the run.
            schedule: Of the bound.
            reward: What is paid.

        Raises:
            ConfigError: The run there was begun with other settings; names them.
            ReplayError: Its rows are damaged or in use.
        """
        stored = reward.episode()
        layout = RowLayout(
            obs_dim=sizes[0],
            action_dim=sizes[1],
            reward_terms=stored.names,
            reward_version=stored.version,
            obs_version=obs_version,
        )
        self._init = run.init
        super().__init__(
            out,
            layout,
            config=config,
            schedule=schedule,
            reward=reward,
            seed=run.seed,
            execution=run.execution,
            progress=Progress(),
            begun=begun_with(door=door, learner=config, run=run, schedule=schedule),
            may_differ=("run.steps",),
        )

    def save(self) -> None:
        """Write a snapshot; between episodes only."""
        self.progress.last_snapshot = self.progress.steps + self.learner.num_updates
        super().save()

    def _begin(self) -> None:
        if self.online.num_rows or (self.offline.num_rows and not self._init):
            raise ConfigError(f"{self.files.out} holds rows but no snapshot: use another --out")
        self.judges.note(ENVIRONMENT)
        if self._init:
            self.start_from(self._init)
        self.save()

    def _restore(self, values: Mapping[str, Any]) -> None:
        super()._restore(values)
        self.judges.note(ENVIRONMENT)
        for replay, num_rows in zip((self.online, self.offline), values["rows"], strict=True):
            replay.rewind(num_rows)
