# SPDX-License-Identifier: Apache-2.0
"""The reward of a run: what is stored with its rows, and what is paid when a batch is drawn.

Called by the training loops, the learner beside a robot and who reads recordings, so that all of
them pay the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla_rl_ros.core.reward import Reward, make_reward
from vla_rl_ros.learning.presets import LearnerConfig
from vla_rl_ros.learning.replay import Replay
from vla_rl_ros.learning.reward_config import RewardConfig
from vla_rl_ros.learning.rewards import PaidLater, ProgressReward, ProgressValue
from vla_rl_ros.learning.stored_successes import stored_successes
from vla_rl_ros.learning.transitions import Transitions
from vla_rl_ros.learning.vice import Vice, ViceSettings


class RewardPlan:
    """What a run pays.

    Attributes:
        vice: Pays when a batch is drawn, None where what is stored is what is paid.
        truncation_value: Least that is to be expected after an episode was cut off, for returns
            of whole episodes.
    """

    def __init__(
        self,
        learner: LearnerConfig,
        wanted: RewardConfig | None = None,
        *,
        obs_dim: int,
        obs_version: str,
        paid: str = "success",
        seed: int = 0,
    ) -> None:
        """Learn what has to be learned from earlier runs.

        Args:
            learner: Who is paid.
            wanted: What the user asks for, checked by `reward_config`.
            obs_dim: Width of an observation.
            obs_version: What observations mean.
            paid: What the task pays, see `core.reward.TaskReward`.
            seed: Of VICE.

        Raises:
            ConfigError: An earlier run that is to be learned from does not fit.
            ReplayError: Its rows are damaged or in use.
        """
        wanted = wanted or RewardConfig()
        self._learner, self._wanted, self._paid = learner, wanted, paid
        self._progress: ProgressValue | None = None
        self.vice: Vice | None = None
        self.truncation_value = 0.0
        if wanted.time_penalty:
            self.truncation_value -= wanted.time_penalty / (1.0 - learner.gamma)
        if wanted.progress:
            rows = stored_successes(Path(wanted.progress), obs_dim, obs_version)
            self._progress = ProgressValue.fit(rows)
            self.truncation_value -= wanted.progress_scale
        if wanted.vice:
            rows = stored_successes(Path(wanted.vice), obs_dim, obs_version)
            self.vice = Vice(
                np.stack([episode["obs"][-1] for episode in rows]),
                np.concatenate([episode["obs"] for episode in rows]),
                ViceSettings(
                    learning_rate=wanted.vice_learning_rate,
                    gradient_penalty=wanted.vice_gradient_penalty,
                ),
                seed=seed,
            )

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Least and most that can be earned from anywhere on, None where that is not known."""
        if self.vice is not None or self._paid != "success":
            return None
        # A step back may cost all the progress there is, and lead to an end that costs as much.
        step_back = self._wanted.progress_scale if self._progress is not None else 0.0
        return self.truncation_value - step_back, 1.0

    def episode(self) -> Reward:
        """Judges the ticks of an episode, new for each."""
        wanted, learner = self._wanted, self._learner
        shaping: list[Reward] = []
        if self.vice is not None:
            shaping.append(PaidLater(self.vice.version))
        if self._progress is not None:
            shaping.append(
                ProgressReward(self._progress, gamma=learner.gamma, scale=wanted.progress_scale)
            )
        return make_reward(
            paid=self._paid,
            time_penalty=-wanted.time_penalty,
            shaping=shaping,
            grasp_penalty=learner.grasp_penalty if learner.grasp else None,
        )

    def paid(self, batch: Transitions) -> Transitions:
        """A batch as it is to be learned from now."""
        return batch if self.vice is None else self.vice.relabelled(batch)

    def learn(self, lately: Replay, size: int, rng: np.random.Generator) -> dict[str, float]:
        """Let what pays late learn, once per batch that it paid.

        Args:
            lately: What the policy did, of which VICE takes all for failure.
            size: Rows to draw of it.
            rng: Chooses them.

        Returns:
            Its metrics, none where nothing is paid late.
        """
        if self.vice is None or not len(lately):
            return {}
        return self.vice.update(lately.sample(size, rng)["next_obs"])

    def state_dict(self) -> dict[str, Any] | None:
        """What a snapshot has to hold of it; None for nothing."""
        return None if self.vice is None else self.vice.state_dict()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on where `state_dict` was called; rows of another reward are refused elsewhere."""
        if self.vice is not None and state is not None:
            self.vice.load_state_dict(state)
