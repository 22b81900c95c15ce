# SPDX-License-Identifier: Apache-2.0
"""Choice among several base actions by value (PA-RL, arXiv 2412.06685; EXPO, arXiv 2507.07986).

    candidates -> keep the best by mean Q -> climb dQ/da a few steps -> argmax or softmax(Q / T)

A climb keeps the best action it passed, so it never ends lower than it began. Where no candidate
beats the first by a margin, the first is taken: put the base's own action there and the choice
does no harm that the critic can see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.acting import AnyFloatArray, Float32Array


class Critic(Protocol):
    """What values actions; `learner.ResidualLearner` is one."""

    def q(self, obs: AnyFloatArray, action: AnyFloatArray) -> Float32Array:
        """Values of actions (N, A) at observations (N, O), shape (E, N)."""

    def q_gradient(self, obs: AnyFloatArray, action: AnyFloatArray) -> Float32Array:
        """Gradient of the mean value by the action, shape (N, A)."""


@dataclass(frozen=True, kw_only=True)
class ChoiceConfig:
    """How an action is chosen."""

    num_kept: int = param(10, doc="Candidates that are improved.", low=1, high=1000)
    num_climbs: int = param(10, doc="Gradient steps on each; 0 for a choice alone.", low=0)
    climb_size: float = param(3e-4, doc="Step along dQ/da.", low=0.0, high=1.0)
    temperature: float = param(
        0.0, doc="Of the softmax over values; 0 takes the best.", low=0.0, high=1e3
    )
    margin: float = param(
        0.0, doc="Value by which the best has to beat the first candidate.", low=0.0, high=1e3
    )

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A chosen action.

    Attributes:
        action: Normalised, shape (A,).
        value: Its mean Q.
        first_value: Mean Q of the first candidate.
    """

    action: Float32Array
    value: float
    first_value: float


def choose_action(
    critic: Critic,
    obs: AnyFloatArray,
    candidates: AnyFloatArray,
    config: ChoiceConfig,
    rng: np.random.Generator | None = None,
) -> Choice:
    """Improve candidates by value and choose one.

    Args:
        critic: What values actions.
        obs: Observation, shape (O,).
        candidates: Normalised actions, shape (K, A); the base's own first.
        config: How.
        rng: Needed for a temperature above 0.

    Raises:
        ConfigError: No candidate, or a temperature without `rng`.
    """
    actions = np.asarray(candidates, dtype=np.float32)
    if actions.ndim != 2 or not len(actions):
        raise ConfigError(f"candidates have shape {actions.shape}, expected (K, A) with K > 0")
    if config.temperature > 0.0 and rng is None:
        raise ConfigError("a temperature above 0 draws at random: pass rng")
    values = _mean_q(critic, obs, actions)
    first, first_value = actions[0], float(values[0])
    kept = np.argsort(-values, kind="stable")[: config.num_kept]
    actions, values = _climb(critic, obs, actions[kept], values[kept], config)
    if config.temperature > 0.0 and rng is not None:
        weights = np.exp((values - values.max()).astype(np.float64) / config.temperature)
        index = int(rng.choice(len(values), p=weights / weights.sum()))
    else:
        index = int(np.argmax(values))
    if values[index] <= first_value + config.margin:
        return Choice(action=first, value=first_value, first_value=first_value)
    return Choice(action=actions[index], value=float(values[index]), first_value=first_value)


def _climb(
    critic: Critic,
    obs: AnyFloatArray,
    actions: Float32Array,
    values: Float32Array,
    config: ChoiceConfig,
) -> tuple[Float32Array, Float32Array]:
    """Best action and value that each candidate reached."""
    best, best_values, present = actions.copy(), values.copy(), actions
    for _ in range(config.num_climbs):
        slope = critic.q_gradient(_repeated(obs, len(present)), present)
        present = np.clip(present + np.float32(config.climb_size) * slope, -1.0, 1.0)
        present_values = _mean_q(critic, obs, present)
        is_better = present_values > best_values
        best[is_better], best_values[is_better] = present[is_better], present_values[is_better]
    return best, best_values


def _mean_q(critic: Critic, obs: AnyFloatArray, actions: Float32Array) -> Float32Array:
    values: Float32Array = critic.q(_repeated(obs, len(actions)), actions).mean(0)
    return values


def _repeated(obs: AnyFloatArray, times: int) -> AnyFloatArray:
    return np.broadcast_to(obs, (times, len(obs)))
