# SPDX-License-Identifier: Apache-2.0
"""Everything that learning beside a robot would have to remember, and how it does.

Rows are stored the moment an episode is known and never forgotten. Learner, schedule and progress
are saved from time to time; what was stored after that is looked at once more when the run goes
on, so a process that is killed at any moment loses no row and counts none twice. Called by
`online_run`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla_rl_ros.learning.online_settings import OnlineSettings
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.reward_plan import RewardPlan
from vla_rl_ros.learning.rows import END, RowArray, RowLayout
from vla_rl_ros.learning.run_memory import PhaseProgress, RunMemory, begun_with
from vla_rl_ros.learning.schedule import ScheduleConfig


@dataclass(slots=True, kw_only=True)
class Progress(PhaseProgress):
    """How far a run has come; JSON values. `episodes` are stored ones that were looked at.

    Attributes:
        ticks: Of these.
        human_ticks: Of these, chosen by a human.
        successes: Episodes that ended well, of all.
        warm_up_ticks: Ticks of the third phase.
        online_updates: Updates of the last.
        online_ticks: Ticks since the last phase began.
        first_online: Number of transitions when the warm-up began, or it where there is none.
        published: Version of the weights that were saved last.
    """

    ticks: int = 0
    human_ticks: int = 0
    successes: int = 0
    warm_up_ticks: int = 0
    online_updates: int = 0
    online_ticks: int = 0
    first_online: int = -1
    published: int = 0


class OnlineState(RunMemory[Progress]):
    """Memory of a run; it forgets no row that was stored.

    Its `offline` holds episodes of the base that succeeded and episodes in which a human helped.

    Attributes:
        obs_names: Channels of an observation.
        config: Of the learner.
        settings: Of the run.
    """

    def __init__(
        self,
        out: Path,
        layout: RowLayout,
        obs_names: tuple[str, ...],
        *,
        config: LearnerConfig,
        schedule: ScheduleConfig,
        settings: OnlineSettings,
        reward: RewardPlan | None = None,
    ) -> None:
        """Begin, or continue what lies in `out`.

        Args:
            out: Directory of the run.
            layout: Of the rows.
            obs_names: Channels of an observation.
            config: Of the learner.
            schedule: Of the bound.
            settings: Of the run.
            reward: What is paid; what the task pays, and nothing else, where it is left out.

        Raises:
            ConfigError: The run there was begun with other settings or observations, or the one
                to start from does not fit.
            ReplayError: Its rows are damaged or in use.
        """
        self.obs_names, self.config, self.settings = obs_names, config, settings
        super().__init__(
            out,
            layout,
            config=config,
            schedule=schedule,
            reward=reward
            or RewardPlan(config, obs_dim=layout.obs_dim, obs_version=layout.obs_version),
            seed=settings.seed,
            execution=settings.execution,
            progress=Progress(),
            begun={
                **begun_with(learner=config, schedule=schedule),
                "seed": settings.seed,
                "obs_version": layout.obs_version,
            },
        )
        self._episodes = _closed_episodes(self.online.rows, 0)

    @property
    def last_epoch(self) -> int:
        """Number of the newest stored episode, -1 without one."""
        rows = self.online.rows
        return int(rows["episode"].max()) if len(rows) else -1

    def store(self, rows: RowArray, judge: str = "") -> None:
        """Keep a whole episode; safe against a kill when this returns."""
        self.judges.note(judge)
        first = self.online.num_rows
        self.online.append(rows)
        self._episodes += _closed_episodes(self.online.rows, first)

    def next_episode(self) -> RowArray | None:
        """Rows of the first stored episode that was not looked at yet, None when there is none."""
        if self.progress.episodes >= len(self._episodes):
            return None
        first, last = self._episodes[self.progress.episodes]
        return self.online.rows[first:last]

    def _begin(self) -> None:
        if self.settings.init and not self.online.num_rows:
            self.start_from(self.settings.init)
            self.save()


def _closed_episodes(rows: RowArray, begin: int) -> list[tuple[int, int]]:
    """Bounds [first, last) of the episodes that are whole, from row `begin` on."""
    found, first = [], begin
    for end in (np.flatnonzero(rows["flags"][begin:] & END) + begin).tolist():
        found.append((first, end + 1))
        first = end + 1
    return found
