# SPDX-License-Identifier: Apache-2.0
"""A small environment of somebody else, and base policies for it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

NEAR = 0.1


class ReachEnv(gymnasium.Env):
    """Move a point to a goal; actions in [-2, 4] and [0, 1], so that normalising them matters."""

    def __init__(
        self,
        limit: int = 25,
        *,
        as_dict: bool = False,
        has_image: bool = False,
        says: str = "success",
    ) -> None:
        self._limit, self._as_dict, self._has_image, self._says = limit, as_dict, has_image, says
        self.action_space = spaces.Box(
            np.array([-2.0, 0.0], np.float32), np.array([4.0, 1.0], np.float32)
        )
        vector = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        parts: dict[str, Any] = {"point": vector, "goal": vector}
        if has_image:
            parts["image"] = spaces.Box(0, 255, (4, 4, 3), np.uint8)
        whole = spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.observation_space = spaces.Dict(parts) if as_dict else whole
        self.actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self._point = self.np_random.uniform(-0.2, 0.2, 2)
        self._goal = self.np_random.uniform(-0.6, 0.6, 2)
        self._tick = 0
        self.actions = []
        return self._look(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        self.actions.append(np.array(action))
        move = (action - np.array([1.0, 0.5])) / np.array([3.0, 0.5])
        self._point = self._point + 0.15 * np.clip(move, -1.0, 1.0)
        self._tick += 1
        distance = float(np.linalg.norm(self._point - self._goal))
        info = {self._says: distance < NEAR} if self._says else {}
        return self._look(), -distance, False, self._tick >= self._limit, info

    def _look(self) -> Any:
        if not self._as_dict:
            return np.concatenate([self._point, self._goal])
        parts: dict[str, Any] = {"point": self._point.copy(), "goal": self._goal.copy()}
        if self._has_image:
            parts["image"] = np.full((4, 4, 3), self._tick, np.uint8)
        return parts


def to_env(move: np.ndarray) -> np.ndarray:
    return np.array([1.0, 0.5]) + np.array([3.0, 0.5]) * move


def good_base(env: Any, *, offset: float = 0.0) -> Any:
    """Goes to the goal, `offset` beside it."""

    def act(observation: Any) -> np.ndarray:
        if isinstance(observation, dict):
            observation = np.concatenate([observation["point"], observation["goal"]])
        wanted = (observation[2:] + offset - observation[:2]) / 0.15
        return to_env(np.clip(wanted, -1.0, 1.0))

    return act


def weak_base(env: Any) -> Any:
    """Misses more often than not: stops on the rim."""
    return good_base(env, offset=0.075)


class Pulse:
    """A base with memory: acts on every third tick of an episode only."""

    def __init__(self, env: Any) -> None:
        self._tick = 0
        self._act = good_base(env)

    def reset(self) -> None:
        self._tick = 0

    def __call__(self, observation: Any) -> np.ndarray:
        self._tick += 1
        return self._act(observation) if self._tick % 3 == 1 else to_env(np.zeros(2))


def mean_colour(env: Any) -> Any:
    """Features of the image: its mean."""
    return lambda observation: np.array([observation["image"].mean()])


def not_finite(env: Any) -> Any:
    return lambda observation: np.array([np.nan, 0.0])


for _name, _arguments in {
    "Reach-v0": {},
    "ReachDict-v0": {"as_dict": True},
    "ReachImage-v0": {"as_dict": True, "has_image": True},
    "ReachSilent-v0": {"says": ""},
}.items():
    if _name not in gymnasium.registry:
        gymnasium.register(_name, entry_point=ReachEnv, kwargs=_arguments)
if "ReachDiscrete-v0" not in gymnasium.registry:

    class _Discrete(ReachEnv):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.Discrete(3)

    gymnasium.register("ReachDiscrete-v0", entry_point=_Discrete)
