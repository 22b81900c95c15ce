# SPDX-License-Identifier: Apache-2.0
"""Base policies of others: a factory makes one for an environment, ``FACTORY(env) -> act``.

``act(observation) -> action`` takes what the environment returns and gives what it takes. It is
called once per tick, in order; a policy with memory offers a method ``reset()``, called when an
episode begins. The factories here are weak on purpose: scripted experts of MetaWorld with a
constant error that a residual has to find.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vla_rl_ros.core.errors import ConfigError

Action = npt.NDArray[Any]
PUSH_OFFSET = 0.122
PEG_OFFSET = 0.2


class BasePolicy(Protocol):
    """What a factory returns."""

    def __call__(self, observation: Any, /) -> npt.ArrayLike:  # noqa: ANN401 - the environment's
        """Action for an observation."""


Factory = Callable[..., BasePolicy]


def load_factory(name: str) -> Factory:
    """Import ``MODULE:FACTORY``.

    Raises:
        ConfigError: Not of this form, no such module or attribute, or not callable.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"'{name}' is not of the form MODULE:FACTORY")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"'{name}': {error}; start where it can be imported") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigError(f"'{name}': {module_name} has no function {attribute}")
    made: Factory = factory
    return made


class OffsetExpert:
    """MetaWorld's scripted expert, pushed aside: ``clip(expert(o) + (b, -b, 0, 0), -1, 1)``."""

    def __init__(self, expert: Any, offset: float) -> None:  # noqa: ANN401 - metaworld has no types
        """Wrap an expert.

        Args:
            expert: One of ``metaworld.policies``.
            offset: b, normalised action.
        """
        self._expert = expert
        self._offset = np.array([offset, -offset, 0.0, 0.0], np.float32)

    def __call__(self, observation: Action, /) -> Action:
        """Action for a state observation, float32, shape (4,)."""
        wanted = self._expert.get_action(observation) + self._offset
        clipped: Action = np.clip(wanted, -1.0, 1.0).astype(np.float32)
        return clipped


def metaworld_expert(env: Any, *, offset: float = 0.0) -> OffsetExpert:  # noqa: ANN401
    """Scripted expert of a MetaWorld environment.

    Args:
        env: Made by ``gymnasium.make("Meta-World/MT1", env_name=...)``.
        offset: Constant error, normalised action; 0 for the expert itself.

    Raises:
        ConfigError: Another kind of environment.
    """
    from metaworld.policies import ENV_POLICY_MAP  # type: ignore[import-not-found]

    name = metaworld_name(env)
    if name not in ENV_POLICY_MAP:
        raise ConfigError(f"metaworld has no scripted expert for env_name='{name}'")
    return OffsetExpert(ENV_POLICY_MAP[name](), offset)


def metaworld_push(env: Any) -> OffsetExpert:  # noqa: ANN401
    """push-v3: pushes 35 % of the pucks to the goal, and the others past it."""
    return metaworld_expert(env, offset=PUSH_OFFSET)


def metaworld_peg(env: Any) -> OffsetExpert:  # noqa: ANN401
    """peg-insert-side-v3: inserts 60 % of the pegs."""
    return metaworld_expert(env, offset=PEG_OFFSET)


def metaworld_name(env: Any) -> str:  # noqa: ANN401
    """Name of the MetaWorld task of an environment, e.g. ``push-v3``.

    Raises:
        ConfigError: Not made by ``gymnasium.make("Meta-World/MT1", env_name=...)``.
    """
    spec = getattr(env, "spec", None)
    name = None if spec is None else spec.kwargs.get("env_name")
    if not isinstance(name, str):
        raise ConfigError(
            "not an environment of MetaWorld: use --gym metaworld:Meta-World/MT1 "
            '--gym-arguments \'{"env_name": "push-v3"}\''
        )
    return name
