# SPDX-License-Identifier: Apache-2.0
"""Where episodes begin: numbered starts that are the same for every policy.

Training and evaluation draw from disjoint sets, so that what is measured was never practised on.
Called by `gym_door`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.base_policies import metaworld_name

# Seeds of training lie above, those of evaluation below.
_FIRST_TRAINING_SEED, _SEED_LIMIT = 2**30, 2**31
_TASKS_PER_SEED, _NUM_TRAINING_TASKS, _NUM_TRAINING_SEEDS = 50, 30, 10
_NUM_HELD_OUT = _TASKS_PER_SEED - _NUM_TRAINING_TASKS


class Starts(Protocol):
    """Chooses starts of one environment."""

    def reset(self, env: Any, number: int, *, held_out: bool) -> tuple[Any, int]:  # noqa: ANN401
        """Begin an episode.

        Args:
            env: The environment.
            number: Of the start, >= 0; equal numbers give equal starts.
            held_out: Whether it is one of evaluation.

        Returns:
            The first observation, and a number that identifies the start.
        """


def training_seed(run_seed: int, number: int) -> int:
    """Seed of a start of training, above all of evaluation; runs of other seeds have others."""
    rng = np.random.default_rng([run_seed, number])
    return int(rng.integers(_FIRST_TRAINING_SEED, _SEED_LIMIT))


class SeedStarts:
    """Starts drawn by ``env.reset(seed=...)``."""

    def __init__(self, run_seed: int) -> None:
        """Draw the training starts from the seed of a run; those of evaluation are fixed."""
        self._run_seed = run_seed

    def reset(self, env: Any, number: int, *, held_out: bool) -> tuple[Any, int]:  # noqa: ANN401
        """See `Starts`; held-out starts are the seeds 0, 1, 2 ..."""
        if held_out and number >= _FIRST_TRAINING_SEED:
            raise ConfigError(f"start {number} of evaluation is not below 2^30: lower the seed")
        seed = number if held_out else training_seed(self._run_seed, number)
        observation, _ = env.reset(seed=seed)
        return observation, seed


class MetaWorldStarts:
    """Pinned tasks of MetaWorld's MT1, whose `reset` ignores its seed and draws a task itself.

    A benchmark seed s gives 50 tasks (start and goal). Training draws from tasks 0 to 29 of seeds
    0 to 9; start n of evaluation is task ``30 + n mod 20`` of seed ``n div 20``.
    """

    def __init__(self, env: Any, run_seed: int) -> None:  # noqa: ANN401
        """Switch the environment's own choice off.

        Args:
            env: Made by ``gymnasium.make("Meta-World/MT1", env_name=...)``.
            run_seed: Decides in which order training meets its tasks.
        """
        self._name = metaworld_name(env)
        self._run_seed = run_seed
        self._tasks: dict[int, list[Any]] = {}
        find_layer(env, "toggle_sample_tasks_on_reset").toggle_sample_tasks_on_reset(False)

    def reset(self, env: Any, number: int, *, held_out: bool) -> tuple[Any, int]:  # noqa: ANN401
        """See `Starts`."""
        if held_out:
            seed, index = divmod(number, _NUM_HELD_OUT)
            index += _NUM_TRAINING_TASKS
        else:
            rng = np.random.default_rng([self._run_seed, number])
            seed = int(rng.integers(_NUM_TRAINING_SEEDS))
            index = int(rng.integers(_NUM_TRAINING_TASKS))
        env.unwrapped.set_task(self._of_seed(seed)[index])
        observation, _ = env.reset()
        return observation, _TASKS_PER_SEED * seed + index

    def _of_seed(self, seed: int) -> list[Any]:
        if seed not in self._tasks:
            import metaworld  # type: ignore[import-not-found]

            self._tasks[seed] = metaworld.MT1(self._name, seed=seed).train_tasks
        return self._tasks[seed]


def make_starts(env: Any, run_seed: int) -> Starts:  # noqa: ANN401
    """The starts that fit an environment."""
    if find_layer(env, "toggle_sample_tasks_on_reset") is not None:
        return MetaWorldStarts(env, run_seed)
    return SeedStarts(run_seed)


def find_layer(env: Any, attribute: str) -> Any:  # noqa: ANN401
    """The outermost wrapper that has an attribute of its own, or None."""
    while env is not None:
        if attribute in dir(type(env)):
            return env
        env = vars(env).get("env")
    return None
