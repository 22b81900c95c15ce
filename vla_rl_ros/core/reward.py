# SPDX-License-Identifier: Apache-2.0
"""The one interface of rewards: ``reward(obs, action, next_obs, info) -> (r, terms, done)``.

A reward names its terms and its version; rows store both, so that what was computed in one way is
never mixed with what was computed in another. What the task pays and costs of acting are here;
what is learned (classifier, VICE, progress) is in `learning/rewards.py` and
`learning/vice.py`. Called by the recorders of rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.errors import ConfigError

Vector = npt.NDArray[np.float32]

TASK_TERM, TIME_TERM, GRASP_TERM = "task", "time", "grasp_penalty"
SEPARATE_TERMS = frozenset({GRASP_TERM})
"""Terms that are stored but not part of the reward: the grasp critic alone gets them."""
PAID, DONE = "paid", "done"
"""Keys of ``info``: what the task paid for the step, and whether that ended it."""
_IS_COMMAND = 0.5


class RewardTerms(NamedTuple):
    """What a step earned.

    Attributes:
        reward: The sum of the terms, without those of `SEPARATE_TERMS`.
        terms: By name, in the order of `Reward.names`.
        is_done: Whether nothing is to be gained any more.
    """

    reward: float
    terms: Mapping[str, float]
    is_done: bool


class Reward(Protocol):
    """Judges steps of one episode; make a new one for each, as it may remember.

    Attributes:
        names: Of its terms, in the order in which rows store them.
        version: Changes whenever a term is computed differently.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Of its terms."""

    @property
    def version(self) -> str:
        """Of how they are computed."""

    def __call__(
        self, obs: Vector, action: Vector, next_obs: Vector, info: Mapping[str, float]
    ) -> RewardTerms:
        """Judge a step.

        Args:
            obs: What was seen before, float32, shape (O,).
            action: What was executed, normalised, shape (A,).
            next_obs: What is seen after it, shape (O,).
            info: What else is known: `PAID`, `DONE`.
        """


def one_term(name: str, value: float, *, is_done: bool) -> RewardTerms:
    """Terms of a reward that has one."""
    return RewardTerms(0.0 if name in SEPARATE_TERMS else value, {name: value}, is_done)


class TaskReward:
    """What the task pays, and nothing else: 1 at success where it is sparse."""

    names = (TASK_TERM,)

    def __init__(self, paid: str = "success") -> None:
        """Name what pays: ``success``, or ``env`` for an environment's own reward."""
        self.version = f"{paid} 1"

    def __call__(
        self, obs: Vector, action: Vector, next_obs: Vector, info: Mapping[str, float]
    ) -> RewardTerms:
        """Pass on what was paid."""
        return one_term(TASK_TERM, float(info[PAID]), is_done=bool(info.get(DONE, 0.0)))


class TimePenalty:
    """The same cost for every step."""

    names = (TIME_TERM,)

    def __init__(self, penalty: float) -> None:
        """Set the cost, zero or less.

        Raises:
            ConfigError: It would reward dawdling.
        """
        if penalty > 0.0:
            raise ConfigError(f"time_penalty={penalty} is positive: it would reward dawdling")
        self._penalty = penalty
        self.version = f"time {penalty:g}"

    def __call__(
        self, obs: Vector, action: Vector, next_obs: Vector, info: Mapping[str, float]
    ) -> RewardTerms:
        """Cost of a step."""
        return one_term(TIME_TERM, self._penalty, is_done=False)


class GraspPenalty:
    """A penalty whenever the last channel orders the gripper to turn round (HIL-SERL).

    Values within +-0.5 order nothing. Of arXiv 2410.21845; part of the grasp critic's reward only.
    """

    names = (GRASP_TERM,)
    version = ""
    """None of its own: the learner's settings fix the penalty."""

    def __init__(self, penalty: float) -> None:
        """Set the penalty of each toggle, zero or less."""
        self._penalty, self._last_order = penalty, 0.0

    def __call__(
        self, obs: Vector, action: Vector, next_obs: Vector, info: Mapping[str, float]
    ) -> RewardTerms:
        """Look at the order of a step."""
        order = float(action[-1])
        if abs(order) < _IS_COMMAND:
            return one_term(GRASP_TERM, 0.0, is_done=False)
        is_toggle = self._last_order * order < 0.0
        self._last_order = order
        return one_term(GRASP_TERM, self._penalty if is_toggle else 0.0, is_done=False)


class SumReward:
    """Several rewards at once; the step is done where one of them says so."""

    def __init__(self, parts: Sequence[Reward]) -> None:
        """Add up.

        Raises:
            ConfigError: Two parts give a term the same name.
        """
        self._parts = tuple(parts)
        self.names = tuple(itertools.chain.from_iterable(part.names for part in parts))
        self.version = ", ".join(part.version for part in parts if part.version)
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"two rewards give a term the same name: {', '.join(self.names)}")

    def __call__(
        self, obs: Vector, action: Vector, next_obs: Vector, info: Mapping[str, float]
    ) -> RewardTerms:
        """Judge a step by every part."""
        found = [part(obs, action, next_obs, info) for part in self._parts]
        terms = {name: value for each in found for name, value in each.terms.items()}
        reward = sum(each.reward for each in found)
        return RewardTerms(reward, terms, any(each.is_done for each in found))


def make_reward(
    *,
    paid: str = "success",
    time_penalty: float = 0.0,
    shaping: Sequence[Reward] = (),
    grasp_penalty: float | None = None,
) -> Reward:
    """The reward of an episode.

    Args:
        paid: What the task pays, see `TaskReward`.
        time_penalty: Cost of every step, zero or less.
        shaping: Rewards of other kinds.
        grasp_penalty: Of each toggle of the gripper; None for a learner without a grasp critic.
    """
    parts: list[Reward] = [TaskReward(paid)]
    if time_penalty:
        parts.append(TimePenalty(time_penalty))
    parts += shaping
    if grasp_penalty is not None:
        parts.append(GraspPenalty(grasp_penalty))
    return parts[0] if len(parts) == 1 else SumReward(parts)
