# SPDX-License-Identifier: Apache-2.0
"""What every run of residual learning has to remember, and whether it may be continued.

Called by `gym_state` and `online_state`, which say what else counts in their kind of run, and by
`offline_run`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.acting import Weights
from vla_rl_ros.learning.gym_files import RunFiles
from vla_rl_ros.learning.judge_names import JudgeNames
from vla_rl_ros.learning.learner import ResidualLearner
from vla_rl_ros.learning.older_runs import completed_run
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.replay import Replay
from vla_rl_ros.learning.reward_plan import RewardPlan
from vla_rl_ros.learning.rows import RowLayout
from vla_rl_ros.learning.run_start import REPLAY_DIRECTORY, read_start
from vla_rl_ros.learning.schedule import Schedule, ScheduleConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def begun_with(**parts: DataclassInstance) -> dict[str, Any]:
    """Settings of a run as JSON values, ``part.field``."""
    named = {
        f"{part}.{name}": value
        for part, settings in parts.items()
        for name, value in asdict(settings).items()
    }
    values: dict[str, Any] = json.loads(json.dumps(named))
    return values


def check_same(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], out: Path, *, may_differ: Collection[str]
) -> None:
    """Refuse to continue a run that was begun differently.

    Args:
        ours: `begun_with` of this call.
        theirs: Of the run in `out`; what it does not name it had as `older_runs` says.
        out: Its directory.
        may_differ: Names that only make it longer.

    Raises:
        ConfigError: Names every setting that differs, with the value it had.
    """
    theirs = completed_run(theirs)
    different = [
        f"{name}={theirs.get(name)!r}"
        for name, value in ours.items()
        if name not in may_differ and theirs.get(name) != value
    ]
    if different:
        raise ConfigError(
            f"{out} was begun with {', '.join(different)}: use the same settings and base policy, "
            "or another --out"
        )


@dataclass(slots=True, kw_only=True)
class PhaseProgress:
    """How far the phases have come that every run has; JSON values.

    Attributes:
        episodes: Episodes that count.
        base_episodes: Of the first phase.
        has_normaliser: Whether the scale of observations is known.
        offline_updates: Updates of the second phase.
        critic_updates: Updates of the fourth.
    """

    episodes: int = 0
    base_episodes: int = 0
    has_normaliser: bool = False
    offline_updates: int = 0
    critic_updates: int = 0


P = TypeVar("P", bound=PhaseProgress)


class RunMemory(ABC, Generic[P]):
    """Learner, replay, schedule, random stream and progress of one run.

    Attributes:
        files: Snapshot and log.
        learner: What learns.
        schedule: How far the residual may go.
        online: What happened in this run.
        offline: What somebody has shown.
        judges: Names of those who judged the episodes in both.
        reward: What is paid.
        rng: Chooses batches.
        progress: How far the run is.
        best: Weights of the best window, None before there was one.
    """

    def __init__(
        self,
        out: Path,
        layout: RowLayout,
        *,
        config: LearnerConfig,
        schedule: ScheduleConfig,
        reward: RewardPlan,
        seed: int,
        execution: str,
        progress: P,
        begun: Mapping[str, Any],
        may_differ: Collection[str] = (),
    ) -> None:
        """Begin, or continue what lies in `out`.

        Args:
            out: Directory of the run.
            layout: Of the rows.
            config: Of the learner.
            schedule: Of the bound.
            reward: What is paid.
            seed: Of weights and batches.
            execution: Of the gradient steps.
            progress: Of a run that begins.
            begun: What the run is begun with, `begun_with`.
            may_differ: Names of it that a run may be continued with all the same.

        Raises:
            ConfigError: The run there was begun with other settings; names them.
            ReplayError: Its rows are damaged or in use.
        """
        self.files = RunFiles(out)
        self.learner = ResidualLearner(
            config,
            layout.obs_dim,
            layout.action_dim,
            seed,
            value_range=reward.value_range,
            execution=execution,
        )
        self.schedule = Schedule(schedule, config.xi)
        self.learner.xi = self.schedule.xi
        self.rng = np.random.default_rng([seed, 2])
        self.progress = progress
        self.reward = reward
        self.best: Weights | None = None
        self._begun = dict(begun)
        values = self.files.read()
        if values is not None:
            check_same(self._begun, json.loads(values["begun"]), out, may_differ=may_differ)
        self.judges = JudgeNames(out / REPLAY_DIRECTORY)
        with ExitStack() as opened:
            self.online, self.offline = (
                opened.enter_context(closing(self._open(name, layout)))
                for name in ("online", "offline")
            )
            if values is None:
                self._begin()
            else:
                self._restore(values)
                self.files.cut_log(values)
            opened.pop_all()

    def save(self) -> None:
        """Write a snapshot; it is whole or the old one."""
        best = self.best
        self.files.save(
            {
                "begun": json.dumps(self._begun),
                "progress": json.dumps(asdict(self.progress)),
                "schedule": json.dumps(self.schedule.state_dict()),
                "rng": json.dumps(self.rng.bit_generator.state),
                "rows": (self.online.num_rows, self.offline.num_rows),
                "learner": self.learner.state_dict(),
                "reward": self.reward.state_dict(),
                "best": None
                if best is None
                else {name: torch.from_numpy(np.array(w)) for name, w in best.items()},
            }
        )

    def close(self) -> None:
        """Release the replay."""
        self.online.close()
        self.offline.close()

    def start_from(self, init: str) -> None:
        """Take over the run in a directory; its offline updates are those of this one."""
        start = read_start(Path(init), self.offline.layout)
        start.begin(self.learner)
        self.learner.xi = self.schedule.xi
        self.judges.note(*start.judges)
        self.offline.append(start.rows[self.offline.num_rows :])
        self.progress.has_normaliser = True
        self.progress.offline_updates = self.learner.config.offline_updates

    def _open(self, name: str, layout: RowLayout) -> Replay:
        config = self.learner.config
        return Replay(
            self.files.out / REPLAY_DIRECTORY / name,
            layout,
            n_step=config.n_step,
            gamma=config.gamma,
            truncation_value=self.reward.truncation_value,
            takeover_ends=config.takeover_ends,
            timeout_ends=config.timeout_ends,
        )

    @abstractmethod
    def _begin(self) -> None:
        """What a run begins with for which there is no snapshot; replays and learner are there."""

    def _restore(self, values: Mapping[str, Any]) -> None:
        self.progress = type(self.progress)(**json.loads(values["progress"]))
        self.schedule.load_state_dict(json.loads(values["schedule"]))
        self.rng.bit_generator.state = json.loads(values["rng"])
        self.learner.load_state_dict(values["learner"])
        self.reward.load_state_dict(values.get("reward"))
        best = values["best"]
        self.best = None if best is None else {name: w.numpy() for name, w in best.items()}
