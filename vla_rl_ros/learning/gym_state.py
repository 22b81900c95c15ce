# SPDX-License-Identifier: Apache-2.0
"""Everything a run of `gym_loop` would have to remember, and how it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.acting import Weights
from vla_rl_ros.learning.batch import GRASP_KEY
from vla_rl_ros.learning.gym_door import DoorSettings
from vla_rl_ros.learning.gym_files import RunFiles
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.replay import Replay
from vla_rl_ros.learning.rows import TASK_TERM, RowLayout
from vla_rl_ros.learning.run_start import RunStart, read_start
from vla_rl_ros.learning.schedule import Schedule, ScheduleConfig


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
class Progress:
    """How far a run has come; JSON values.

    Attributes:
        steps: Environment steps, without evaluation.
        episodes: Episodes, and number of the next one.
        base_episodes: Of the first phase.
        offline_updates: Of the second.
        warm_up_steps: Of the third.
        critic_updates: Of the fourth.
        longest_episode: In ticks.
        next_evaluation: Step of it.
        evaluated_at: Step of the last one.
        last_snapshot: Steps and updates together at that time.
        has_normaliser: Whether the scale of observations is known.
        base_successes: Of the held-out starts, by start; None before it was measured.
        metric_sums: By metric, sum and number of its values since the last episode.
        wall_s: Time spent.
    """

    steps: int = 0
    episodes: int = 0
    base_episodes: int = 0
    offline_updates: int = 0
    warm_up_steps: int = 0
    critic_updates: int = 0
    longest_episode: int = 1
    next_evaluation: int = 0
    evaluated_at: int = -1
    last_snapshot: int = 0
    has_normaliser: bool = False
    base_successes: list[bool] | None = None
    metric_sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    wall_s: float = 0.0


class RunState:
    """Learner, replay, schedule, random stream and progress of one run.

    Attributes:
        files: Snapshot and log.
        learner: What learns.
        schedule: How far the residual may go.
        online: What happened in this run.
        offline: Demonstrations: here the successes of the base.
        rng: Chooses batches and probing ticks.
        progress: How far the run is.
        best: Weights of the best window, None before there was one.
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

        Raises:
            ConfigError: The run there was begun with other settings; names them.
            ReplayError: Its rows are damaged or in use.
        """
        parts: dict[str, Any] = {"door": door, "learner": config, "run": run, "schedule": schedule}
        self._settings = {
            f"{part}.{name}": list(value) if isinstance(value, tuple) else value
            for part, settings in parts.items()
            for name, value in asdict(settings).items()
        }
        self.files = RunFiles(out)
        self.learner = ResidualLearner(config, *sizes, run.seed, execution=run.execution)
        self.schedule = Schedule(schedule, config.xi)
        self.learner.xi = self.schedule.xi
        self.rng = np.random.default_rng([run.seed, 2])
        self.progress = Progress()
        self.best: Weights | None = None
        layout = RowLayout(
            obs_dim=sizes[0],
            action_dim=sizes[1],
            reward_terms=(TASK_TERM, GRASP_KEY) if config.grasp else (TASK_TERM,),
            reward_version=f"{door.reward} 1",
            obs_version=obs_version,
        )
        values = self.files.load()
        if values is not None:
            self._check_same(json.loads(values["settings"]))
        self.online, self.offline = (
            Replay(out / "replay" / name, layout, n_step=config.n_step, gamma=config.gamma)
            for name in ("online", "offline")
        )
        if values is not None:
            self._restore(values)
        elif self.online.num_rows or (self.offline.num_rows and not run.init):
            raise ConfigError(f"{out} holds rows but no snapshot: use another --out")
        else:
            if run.init:
                self._start_from(read_start(Path(run.init), layout), config)
            self.save()

    def save(self) -> None:
        """Write a snapshot; between episodes only."""
        progress = self.progress
        progress.last_snapshot = progress.steps + self.learner.num_updates
        best = None if self.best is None else _tensors(self.best)
        self.files.save(
            {
                "settings": json.dumps(self._settings),
                "progress": json.dumps(asdict(progress)),
                "schedule": json.dumps(self.schedule.state_dict()),
                "rng": json.dumps(self.rng.bit_generator.state),
                "rows": (self.online.num_rows, self.offline.num_rows),
                "learner": self.learner.state_dict(),
                "best": best,
            }
        )

    def close(self) -> None:
        """Release the replay."""
        self.online.close()
        self.offline.close()

    def _start_from(self, start: RunStart, config: LearnerConfig) -> None:
        """Take over an earlier run, whose offline updates are those of this one."""
        start.begin(self.learner)
        self.learner.xi = self.schedule.xi
        self.offline.append(start.rows[self.offline.num_rows :])
        self.progress.has_normaliser = True
        self.progress.offline_updates = config.offline_updates

    def _restore(self, values: Mapping[str, Any]) -> None:
        self.progress = Progress(**json.loads(values["progress"]))
        self.schedule.load_state_dict(json.loads(values["schedule"]))
        self.rng.bit_generator.state = json.loads(values["rng"])
        self.learner.load_state_dict(values["learner"])
        best = values["best"]
        self.best = None if best is None else {key: w.numpy() for key, w in best.items()}
        # What came after the snapshot comes again.
        for replay, num_rows in zip((self.online, self.offline), values["rows"], strict=True):
            replay.rewind(num_rows)

    def _check_same(self, theirs: Mapping[str, Any]) -> None:
        # A run may be made longer; nothing else changes in its middle.
        different = [
            f"{key}={theirs.get(key)!r}"
            for key, value in self._settings.items()
            if key != "run.steps" and theirs.get(key) != value
        ]
        if different:
            raise ConfigError(
                f"{self.files.out} was begun with {', '.join(different)}: use the same settings "
                "or another --out"
            )


def _tensors(weights: Weights) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.array(value)) for key, value in weights.items()}
