# SPDX-License-Identifier: Apache-2.0
"""Parameters of the learner."""

from __future__ import annotations

from dataclasses import dataclass

from vla_rl_ros.core.changes import changed, check_changes
from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.learning.online_settings import OnlineSettings
from vla_rl_ros.learning.presets import LearnerConfig, preset
from vla_rl_ros.learning.reward_config import RewardConfig, reward_config
from vla_rl_ros.learning.schedule import ScheduleConfig

OWNERS = ("learner", "schedule", "run", "reward")


@dataclass(frozen=True, kw_only=True)
class LearnerNodeConfig:
    """What is learned with, where it is kept, and how often the actor hears of it."""

    control_period_s: float = param(
        0.1, doc="Time between two ticks.", unit="s", low=0.02, high=1.0
    )
    directory: str = param(
        "out/learner",
        doc="Rows, snapshot, log and policy; a run that lies there is continued.",
    )
    preset: str = param(
        "pld", doc="Settings to begin with: pld is the recommended recipe, others are of papers."
    )
    settings: str = param(
        "",
        doc="Changes of the preset, separated by blanks, e.g. "
        "`learner.xi=0.3 schedule.rule=ratchet run.max_utd=4 reward.time_penalty=0.01`.",
    )
    publish_period_s: float = param(
        5.0,
        doc="Time between two sets of weights; each is saved with everything else first.",
        unit="s",
        low=0.1,
        high=600.0,
    )
    threads: int = param(1, doc="Threads of torch.", low=1, high=64)

    def __post_init__(self) -> None:
        """Check bounds, and that preset and changes make sense together."""
        check_bounds(self)
        check_changes(self.settings.split(), OWNERS)
        self.parts()

    def parts(self) -> tuple[LearnerConfig, ScheduleConfig, OnlineSettings, RewardConfig]:
        """What the preset and its changes come to.

        Raises:
            ConfigError: Unknown preset or field, or a value that makes no sense.
        """
        changes = self.settings.split()
        learner = changed(preset(self.preset), "learner", changes)
        return (
            learner,
            changed(ScheduleConfig(), "schedule", changes),
            changed(OnlineSettings(), "run", changes),
            reward_config(changes, learner),
        )
