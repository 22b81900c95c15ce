# SPDX-License-Identifier: Apache-2.0
"""What a user may have paid beside, or in place of, success. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vla_rl_ros.core.changes import changed
from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.presets import LearnerConfig

OWNER = "reward"
"""Of these settings in ``--set reward.FIELD=VALUE``."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What is paid beside success, or in its place."""

    time_penalty: float = param(0.0, doc="Taken off at every tick.", low=0.0, high=1.0)
    progress: str = param(
        "",
        doc="Directory of an earlier run; its successes teach how far along an episode is, and "
        "progress is paid, too. Empty for none.",
    )
    progress_scale: float = param(
        1.0, doc="What the whole way to success is worth.", low=0.0, high=100.0
    )
    vice: str = param(
        "",
        doc="Directory of an earlier run; what its successes ended in are the goals of VICE, "
        "which then pays in place of success. Empty for none.",
    )
    vice_learning_rate: float = param(3e-4, doc="Adam step of VICE.", low=1e-6, high=0.1)
    vice_gradient_penalty: float = param(
        10.0, doc="Weight of keeping the slope of VICE at 1 per deviation.", low=0.0, high=1e3
    )

    def __post_init__(self) -> None:
        """Check bounds, and that VICE pays alone."""
        check_bounds(self)
        if self.vice and (self.time_penalty or self.progress):
            raise ConfigError(
                "reward.vice pays in place of everything else: leave reward.time_penalty and "
                "reward.progress out"
            )


def reward_config(
    changes: Sequence[str], learner: LearnerConfig, *, paid: str = "success"
) -> RewardConfig:
    """What changes of the owner `OWNER` come to, if it suits a learner.

    Args:
        changes: As `core.changes` has them; those of other owners are passed over.
        learner: Who is paid.
        paid: What the task pays, see `core.reward.TaskReward`.

    Raises:
        ConfigError: Unknown field, or a reward that means something else to this learner.
    """
    config = changed(RewardConfig(), OWNER, changes)
    if config.time_penalty and learner.gamma == 1.0:
        raise ConfigError(
            "reward.time_penalty needs learner.gamma below 1: without a discount, what an "
            "episode that was cut off would still cost has no bound"
        )
    if learner.clip_target and (config.vice or paid != "success"):
        raise ConfigError(
            "learner.clip_target needs to know what can be earned, and with reward.vice or "
            "--reward env nobody does: leave it out"
        )
    if config.vice:
        from vla_rl_ros.learning.vice import check_learner

        check_learner(learner)
        if paid != "success":
            raise ConfigError("reward.vice pays in place of success: leave --reward env out")
    return config
