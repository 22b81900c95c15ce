# SPDX-License-Identifier: Apache-2.0
"""An environment of anybody and its base policy, seen the way a residual needs them.

Observations become vectors, actions are normalised to [-1, 1], success ends an episode, and an
action that equals the base's reaches the environment as the base gave it, bit for bit. Called by
`gym_loop` and by evaluation.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.base_policies import load_factory
from vla_rl_ros.learning.gym_starts import make_starts
from vla_rl_ros.learning.gym_vectors import ActionRange, Flattener
from vla_rl_ros.learning.rows import Float32Array

_SUCCESS_KEYS = ("success", "is_success")


@dataclass(frozen=True, kw_only=True)
class DoorSettings:
    """Which environment, which base, and what counts as success."""

    env_id: str = param(doc="Of gymnasium; MODULE:ID imports MODULE first.")
    env_arguments: str = param("{}", doc="JSON object of arguments of gymnasium.make.")
    base: str = param(doc="MODULE:FACTORY; FACTORY(env) returns act(observation) -> action.")
    base_arguments: str = param("{}", doc="JSON object of further arguments of FACTORY.")
    features: str = param(
        "",
        doc="MODULE:FACTORY; FACTORY(env) returns features(observation) -> vector. "
        "'none' leaves images out.",
    )
    reward: str = param(
        "success",
        doc="1 at success, which ends the episode; or what the environment pays.",
        choices=("success", "env"),
    )
    max_ticks: int = param(
        0, doc="Ticks after which an episode is cut off, 0 for the environment's own limit.", low=0
    )
    success_return: float = param(
        0.0, doc="Return from which on an episode of an environment without success counts as one."
    )
    seed: int = param(0, doc="Of the starts of training.", low=0)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """What is known before an action is chosen.

    Attributes:
        obs: Vector for the learner, float32, shape (O,).
        base: Base action, normalised to [-1, 1], shape (A,).
        raw_base: The same as the base gave it.
    """

    obs: Float32Array
    base: Float32Array
    raw_base: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action led to.

    Attributes:
        reward: Earned by it.
        is_terminated: Nothing is to be gained any more.
        is_truncated: Cut off for another reason.
        is_success: Whether the episode has succeeded so far.
    """

    reward: float
    is_terminated: bool
    is_truncated: bool
    is_success: bool


class Door:
    """One environment with its base policy.

    Attributes:
        settings: As given.
        env: The environment.
        obs_dim: Width of `Moment.obs`.
        action_dim: Channels of an action.
        num_base_calls: Actions the base was asked for.
    """

    def __init__(self, settings: DoorSettings) -> None:
        """Make the environment and the base.

        Raises:
            ConfigError: Names the setting that does not fit.
        """
        self.settings = settings
        self.env = _make_env(settings)
        self._starts = make_starts(self.env, settings.seed)
        self._act = load_factory(settings.base)(
            self.env, **_json_object("base_arguments", settings.base_arguments)
        )
        ignores_images = settings.features == "none"
        has_features = settings.features and not ignores_images
        self._vector = Flattener(
            self.env.observation_space,
            load_factory(settings.features)(self.env) if has_features else None,
            ignores_images=ignores_images,
        )
        self._actions = ActionRange(self.env.action_space)
        self.action_dim = self._actions.dim
        self.num_base_calls = 0
        self._tick = 0
        self._return = 0.0
        self._has_succeeded = False
        self.obs_dim = len(self.start(0, held_out=True)[0].obs)

    @property
    def obs_version(self) -> str:
        """Changes whenever observations mean something else."""
        settings = self.settings
        described = f"{settings.env_id} {settings.env_arguments} {settings.features}"
        return str(getattr(self.env.unwrapped, "obs_version", described))

    def start(self, number: int, *, held_out: bool) -> tuple[Moment, int]:
        """Begin an episode; see `gym_starts.Starts`."""
        observation, seed = self._starts.reset(self.env, number, held_out=held_out)
        reset = getattr(self._act, "reset", None)
        if callable(reset):
            reset()
        self._tick, self._return, self._has_succeeded = 0, 0.0, False
        return self._look(observation), seed

    def step(self, moment: Moment, executed: Float32Array) -> tuple[Moment, Outcome]:
        """Execute a normalised action, shape (A,).

        Returns:
            What comes next, and the outcome. After a terminated episode the base is not asked any
            more; its last action stands there, and no bootstrap ever looks at it.
        """
        action = self._actions.to_env(executed, moment.base, moment.raw_base)
        observation, paid, is_over, is_cut, info = self.env.step(action)
        self._tick += 1
        self._return += float(paid)
        is_last = bool(is_over or is_cut) or self._tick == self.settings.max_ticks
        self._has_succeeded |= self._succeeds(info, is_last=is_last)
        is_success = self._has_succeeded
        is_sparse = self.settings.reward == "success"
        outcome = Outcome(
            reward=float(is_success) if is_sparse else float(paid),
            is_terminated=bool(is_over) or (is_sparse and is_success),
            is_truncated=bool(is_cut) or self._tick == self.settings.max_ticks,
            is_success=is_success,
        )
        if outcome.is_terminated:
            return Moment(self._vector(observation), moment.base, moment.raw_base), outcome
        return self._look(observation), outcome

    def close(self) -> None:
        """Free the environment."""
        self.env.close()

    def _look(self, observation: Any) -> Moment:  # noqa: ANN401 - the environment's
        raw = self._actions.checked(self._act(observation))
        self.num_base_calls += 1
        return Moment(self._vector(observation), self._actions.normalise(raw), raw)

    def _succeeds(self, info: dict[str, Any], *, is_last: bool) -> bool:
        for key in _SUCCESS_KEYS:
            if key in info:
                return bool(info[key])
        if self.settings.reward == "success":
            raise ConfigError(
                f"{self.settings.env_id} says in info neither 'success' nor 'is_success': "
                "use --reward env and --success-return"
            )
        return is_last and self._return >= self.settings.success_return


def _make_env(settings: DoorSettings) -> Any:  # noqa: ANN401 - gymnasium has no types here
    import gymnasium

    module, _, env_id = settings.env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.make(env_id, **_json_object("env_arguments", settings.env_arguments))
    except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
        raise ConfigError(f"DoorSettings.env_id='{settings.env_id}': {error}") from error


def _json_object(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"DoorSettings.{name}={text!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"DoorSettings.{name}={text!r} is not a JSON object")
    return value
