# SPDX-License-Identifier: Apache-2.0
"""Learned rewards behind `core.reward.Reward`.

A classifier's or a progress value's reward is computed when the step is recorded; VICE, whose
classifier goes on learning, is computed when the learner draws a batch (see `vice`). Called by
`reward_plan`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.reward import (
    DONE,
    TASK_TERM,
    RewardTerms,
    Vector,
    one_term,
)
from vla_rl_ros.learning.rows import RowArray

_PROGRESS_TERM = "progress"
_RIDGE = 1e-3


class ClassifierReward:
    """1 and done where a classifier takes what is seen for success."""

    names = (TASK_TERM,)

    def __init__(
        self, probability: Callable[[Vector], float], *, threshold: float, version: str
    ) -> None:
        """Ask a classifier.

        Args:
            probability: Of success, for what is seen after a step, shape (O,).
            threshold: From which on it counts.
            version: Of the classifier.
        """
        self._probability, self._threshold = probability, threshold
        self.version = f"classifier {version} at {threshold:g}"

    def __call__(
        self, obs: Vector, action: Vector, next_obs: Vector, info: Mapping[str, float]
    ) -> RewardTerms:
        """Judge what the step led to."""
        is_success = self._probability(next_obs) >= self._threshold
        return one_term(TASK_TERM, float(is_success), is_done=is_success)


class PaidLater:
    """Says in the version of rows that they are paid when a batch is drawn, by something else."""

    names = ()

    def __init__(self, payer: str) -> None:
        """Name the version of what pays."""
        self.version = f"{payer} in its place"

    def __call__(
        self, obs: Vector, action: Vector, next_obs: Vector, info: Mapping[str, float]
    ) -> RewardTerms:
        """Nothing yet."""
        return RewardTerms(0.0, {}, is_done=False)


class ProgressValue:
    """How far along a success is, in [0, 1], learned from episodes that succeeded.

    A linear fit of the part of the episode that has passed, from observations scaled to unit
    deviation; enough to tell the beginning from the end, and to be read. As with RFTF and VLA-RL
    the value only shapes: see `ProgressReward`.
    """

    def __init__(
        self, weights: npt.NDArray[np.float64], offset: float, *, num_episodes: int
    ) -> None:
        """Take a fit: progress is ``obs @ weights + offset``, cut off at 0 and 1."""
        self._weights, self._offset = weights, offset
        self.version = f"progress of {num_episodes} episodes {_digest(weights, offset)}"

    @classmethod
    def fit(cls, episodes: Sequence[RowArray]) -> ProgressValue:
        """Fit to the rows of whole episodes, each of them a success.

        Raises:
            ConfigError: There are none, or they are too short.
        """
        seen = [np.asarray(rows["obs"], np.float64) for rows in episodes if len(rows) > 1]
        if not seen:
            raise ConfigError("a progress value needs episodes of success with two rows or more")
        targets = np.concatenate([np.linspace(0.0, 1.0, len(obs)) for obs in seen])
        weights = np.concatenate([np.full(len(obs), 1.0 / len(obs)) for obs in seen])
        obs = np.concatenate(seen)
        mean, deviation = obs.mean(0), np.maximum(obs.std(0), 1e-3)
        scaled = (obs - mean) / deviation
        # Every episode counts the same, however long it took.
        gram = (scaled * weights[:, None]).T @ scaled + _RIDGE * len(seen) * np.eye(obs.shape[1])
        middle = float((weights * targets).sum() / weights.sum())
        fitted = np.linalg.solve(gram, (scaled * weights[:, None]).T @ (targets - middle))
        slope = fitted / deviation
        return cls(slope, middle - float(mean @ slope), num_episodes=len(seen))

    def __call__(self, obs: Vector) -> float:
        """Progress of what is seen, shape (O,)."""
        return float(np.clip(obs.astype(np.float64) @ self._weights + self._offset, 0.0, 1.0))


class ProgressReward:
    """Potential-based shaping by a progress value, which keeps the optimum (Ng et al. 1999).

    ``r = scale * (gamma * progress(next_obs) - progress(obs))``; what a done step leads to has no
    potential left.
    """

    names = (_PROGRESS_TERM,)

    def __init__(self, value: ProgressValue, *, gamma: float, scale: float = 1.0) -> None:
        """Shape with a discount, which must be the learner's."""
        self._value, self._gamma, self._scale = value, gamma, scale
        self.version = f"{value.version}, gamma {gamma:g}, scale {scale:g}"

    def __call__(
        self, obs: Vector, action: Vector, next_obs: Vector, info: Mapping[str, float]
    ) -> RewardTerms:
        """Judge a step."""
        after = 0.0 if info.get(DONE, 0.0) else self._gamma * self._value(next_obs)
        reward = self._scale * (after - self._value(obs))
        return one_term(_PROGRESS_TERM, reward, is_done=False)


def _digest(weights: npt.NDArray[np.float64], offset: float) -> str:
    return hashlib.sha256(np.append(weights, offset).tobytes()).hexdigest()[:12]
