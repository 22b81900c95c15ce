# SPDX-License-Identifier: Apache-2.0
"""Everything that learning beside a robot would have to remember, and how it does.

Rows are stored the moment an episode is known and never forgotten. Learner, schedule and progress
are saved from time to time; what was stored after that is looked at once more when the run goes
on, so a process that is killed at any moment loses no row and counts none twice. Called by
`online_run`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.acting import Weights
from vla_rl_ros.learning.gym_files import RunFiles
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.online_settings import OnlineSettings
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.replay import Replay
from vla_rl_ros.learning.rows import END, RowArray, RowLayout
from vla_rl_ros.learning.run_start import RunStart, read_start
from vla_rl_ros.learning.schedule import Schedule, ScheduleConfig


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run has come; JSON values.

    Attributes:
        episodes: Stored episodes that were looked at.
        ticks: Of these.
        human_ticks: Of these, chosen by a human.
        successes: Episodes that ended well, of all.
        base_episodes: Episodes of the first phase.
        has_normaliser: Whether the scale of observations is known.
        offline_updates: Updates of the second phase.
        warm_up_ticks: Ticks of the third.
        critic_updates: Updates of the fourth.
        online_updates: Updates of the last.
        online_ticks: Ticks since the last phase began.
        first_online: Number of transitions when it began.
        published: Version of the weights that were saved last.
    """

    episodes: int = 0
    ticks: int = 0
    human_ticks: int = 0
    successes: int = 0
    base_episodes: int = 0
    has_normaliser: bool = False
    offline_updates: int = 0
    warm_up_ticks: int = 0
    critic_updates: int = 0
    online_updates: int = 0
    online_ticks: int = 0
    first_online: int = -1
    published: int = 0


class OnlineState:
    """Learner, replay, schedule and progress.

    Attributes:
        files: Snapshot and log.
        obs_names: Channels of an observation.
        config: Of the learner.
        settings: Of the run.
        learner: What learns.
        schedule: How far the residual may go.
        online: Every episode.
        offline: What somebody has shown: successes of the base, corrections of a human.
        rng: Chooses batches.
        progress: How far the run is.
        best: Weights of the best window, None before there was one.
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
    ) -> None:
        """Begin, or continue what lies in `out`.

        Args:
            out: Directory of the run.
            layout: Of the rows.
            obs_names: Channels of an observation.
            config: Of the learner.
            schedule: Of the bound.
            settings: Of the run.

        Raises:
            ConfigError: The run there was begun with other settings or observations, or the one
                to start from does not fit.
            ReplayError: Its rows are damaged or in use.
        """
        self.files, self.obs_names = RunFiles(out), obs_names
        self.config, self.settings = config, settings
        sizes = (layout.obs_dim, layout.action_dim)
        self.learner = ResidualLearner(config, *sizes, settings.seed, execution=settings.execution)
        self.schedule = Schedule(schedule, config.xi)
        self.learner.xi = self.schedule.xi
        self.rng = np.random.default_rng([settings.seed, 2])
        self.progress = Progress()
        self.best: Weights | None = None
        self._begun_with = {
            **{f"learner.{name}": value for name, value in asdict(config).items()},
            **{f"schedule.{name}": value for name, value in asdict(schedule).items()},
            "seed": settings.seed,
            "obs_version": layout.obs_version,
        }
        values = self.files.load()
        if values is not None:
            self._check_same(json.loads(values["begun_with"]))
        self.online, self.offline = (
            Replay(out / "replay" / name, layout, n_step=config.n_step, gamma=config.gamma)
            for name in ("online", "offline")
        )
        if values is not None:
            self._restore(values)
        elif settings.init and not self.online.num_rows:
            self._start_from(read_start(Path(settings.init), layout))
            self.save()
        self._episodes = _closed_episodes(self.online.rows, 0)

    @property
    def last_epoch(self) -> int:
        """Number of the newest stored episode, -1 without one."""
        rows = self.online.rows
        return int(rows["episode"].max()) if len(rows) else -1

    def store(self, rows: RowArray) -> None:
        """Keep a whole episode; safe against a kill when this returns."""
        first = self.online.num_rows
        self.online.append(rows)
        self._episodes += _closed_episodes(self.online.rows, first)

    def next_episode(self) -> RowArray | None:
        """Rows of the first stored episode that was not looked at yet, None when there is none."""
        if self.progress.episodes >= len(self._episodes):
            return None
        first, last = self._episodes[self.progress.episodes]
        return self.online.rows[first:last]

    def save(self) -> None:
        """Write a snapshot; it is whole or the old one."""
        best = self.best
        self.files.save(
            {
                "begun_with": json.dumps(self._begun_with),
                "progress": json.dumps(asdict(self.progress)),
                "schedule": json.dumps(self.schedule.state_dict()),
                "rng": json.dumps(self.rng.bit_generator.state),
                "learner": self.learner.state_dict(),
                "best": None
                if best is None
                else {k: torch.from_numpy(v) for k, v in best.items()},
            }
        )

    def close(self) -> None:
        """Release the replay."""
        self.online.close()
        self.offline.close()

    def _start_from(self, start: RunStart) -> None:
        """Take over an earlier run, whose offline updates are those of this one."""
        start.begin(self.learner)
        self.learner.xi = self.schedule.xi
        self.offline.append(start.rows[self.offline.num_rows :])
        self.progress.has_normaliser = True
        self.progress.offline_updates = self.config.offline_updates

    def _restore(self, values: Mapping[str, Any]) -> None:
        self.progress = Progress(**json.loads(values["progress"]))
        self.schedule.load_state_dict(json.loads(values["schedule"]))
        self.rng.bit_generator.state = json.loads(values["rng"])
        self.learner.load_state_dict(values["learner"])
        best = values["best"]
        self.best = None if best is None else {key: w.numpy() for key, w in best.items()}

    def _check_same(self, theirs: Mapping[str, Any]) -> None:
        ours = json.loads(json.dumps(self._begun_with))
        different = [f"{key}={theirs.get(key)!r}" for key in ours if theirs.get(key) != ours[key]]
        if different:
            raise ConfigError(
                f"{self.files.out} was begun with {', '.join(different)}: use the same settings "
                "and base policy, or another directory"
            )


def _closed_episodes(rows: RowArray, begin: int) -> list[tuple[int, int]]:
    """Bounds [first, last) of the episodes that are whole, from row `begin` on."""
    found, first = [], begin
    for end in (np.flatnonzero(rows["flags"][begin:] & END) + begin).tolist():
        found.append((first, end + 1))
        first = end + 1
    return found
