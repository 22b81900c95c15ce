# SPDX-License-Identifier: Apache-2.0
"""What the runtime asks of a vision-language-action policy, and how one is made by name.

A back end is one module with a function ``make(settings) -> ChunkPolicy``. It owns its weights,
its preprocessing and its action codec; it knows nothing of ROS, ticks or episodes. Heavy imports
belong into ``make``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from vla_rl_ros.core.config import check_bounds, param
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.core.types import FloatArray, ImageArray, Pose

POLICY_MODULES = {
    "scripted": "vla_rl_ros.policies.scripted",
    "still": "vla_rl_ros.policies.still",
}
"""Back ends by name; the module is imported only when its policy is made."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyObservation:
    """What a policy sees at one tick.

    Attributes:
        stamp_ns: Stamp of the tick; element 0 of the answer belongs to it.
        images: Camera name to colour image, (height, width, 3), read-only.
        state: Proprioception at the stamp, channels of `core.spec.STATE_CHANNELS`, shape (20,).
        instruction: What the policy is told.
        task: Task name; for policies that are not told by language.
        last_action: Action executed at the last tick, SI, shape (7,), None at the start.
        objects: True object poses, only for policies with `needs_objects`.
    """

    stamp_ns: int
    images: Mapping[str, ImageArray]
    state: FloatArray
    instruction: str
    task: str
    last_action: FloatArray | None = None
    objects: Mapping[str, Pose] | None = None


class ChunkPolicy(Protocol):
    """A policy that answers one observation with a chunk of actions.

    Used from one thread at a time.
    """

    @property
    def horizon(self) -> int:
        """Number of elements of every chunk."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras it looks at; without a fresh image of each it is not asked."""

    @property
    def needs_objects(self) -> bool:
        """Whether it reads true object poses, which exist in simulation only."""

    def infer(self, observation: PolicyObservation, prefix: FloatArray | None) -> FloatArray:
        """Predict a chunk.

        Args:
            observation: What is seen at the tick of element 0.
            prefix: Elements 0 to d - 1, shape (d, 7), SI: what is promised to the arm while the
                inference runs. A policy that can be conditioned repeats them exactly.

        Returns:
            Actions in SI, shape (horizon, 7), channels of `core.spec.ACTION_CHANNELS`.
        """

    def reset(self) -> None:
        """Forget everything; called before the first inference of an episode."""


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """What every back end is made from."""

    horizon: int = param(8, doc="Elements per chunk.", low=1, high=256)
    path: str = param("", doc="Directory or file of the weights, empty where there are none.")

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEnvironment:
    """What the cell tells a back end when it is made.

    Attributes:
        control_period_s: Time between two elements of a chunk.
        cameras: Names of the cameras of the cell.
    """

    control_period_s: float = 0.1
    cameras: tuple[str, ...] = field(default=())


def make_policy(
    name: str, settings: PolicySettings, environment: PolicyEnvironment
) -> ChunkPolicy:
    """Make a policy by name.

    Raises:
        ConfigError: Unknown name, or the back end refuses its settings.
    """
    module_name = POLICY_MODULES.get(name)
    if module_name is None:
        known = ", ".join(sorted(POLICY_MODULES))
        raise ConfigError(f"policy='{name}' is unknown; known: {known}")
    policy: ChunkPolicy = importlib.import_module(module_name).make(settings, environment)
    missing = sorted(set(policy.cameras) - set(environment.cameras))
    if missing:
        raise ConfigError(f"policy '{name}' needs cameras the cell lacks: {', '.join(missing)}")
    return policy
